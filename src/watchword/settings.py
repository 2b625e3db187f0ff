"""The settings of one process, as ``watchword.toml`` holds them."""
