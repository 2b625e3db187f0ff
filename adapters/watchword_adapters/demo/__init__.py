"""The demonstration: agents and an attacker on one bus, without Watchword and with it."""
