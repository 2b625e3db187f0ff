"""The control log: written by operators, followed by every process."""
