"""How fast trust moves: operators at their commands, agents that go bad, and readers in processes of their own."""
