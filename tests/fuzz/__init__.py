"""Fuzzing that knows the structure of what it changes; each module runs by itself, with a time and a seed."""
