"""Message-bus clients, wrapped."""
