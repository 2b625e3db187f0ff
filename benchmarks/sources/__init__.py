"""How fast each key source learns of keys, what an outage does to it, and what floods cost: a module for each."""
