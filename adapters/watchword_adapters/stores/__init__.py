"""Replay stores."""
