"""Key sources."""
