"""Contract suites: what every adapter must pass, importable by whoever writes another."""
