"""The programs that ``watchword init --bus`` puts before a newcomer: whole files, run and type-checked as they are."""
