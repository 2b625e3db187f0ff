"""``python -m benchmarks``: the same as ``watchword bench``."""

import sys

from watchword_adapters.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
