"""The control log: followed by every process, written by operators."""
