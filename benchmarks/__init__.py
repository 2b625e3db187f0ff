"""What Watchword costs, measured beside what it is built on."""
