"""NATS users' NKeys as identities: their seeds sign, and their JWTs say whose keys they are (docs/nkeys.md)."""
