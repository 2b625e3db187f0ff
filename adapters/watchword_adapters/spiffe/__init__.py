"""SPIFFE workloads as identities: X.509-SVIDs sign, and trust bundles say whose they are (docs/spiffe.md)."""
