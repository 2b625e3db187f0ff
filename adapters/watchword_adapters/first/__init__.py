"""The example programs that ``watchword init --bus`` writes: complete files, tested and type-checked as they are."""
