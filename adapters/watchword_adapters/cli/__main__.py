"""``python -m watchword_adapters.cli``."""

from watchword_adapters.cli import main

raise SystemExit(main())
