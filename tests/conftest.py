"""Registers the fixtures that every kind of test may use."""

pytest_plugins = ["tests.brokers.plugin"]
