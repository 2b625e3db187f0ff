"""Real brokers for the tests: found, started lazily, stopped at the end, and named in the run's last lines."""
