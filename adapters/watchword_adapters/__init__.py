"""Adapters: clients, key sources and stores that plug into the core of Watchword; one extra each."""
