"""Plays failures under attack: consumers die, brokers restart, replays never stop; then counts who got what."""
