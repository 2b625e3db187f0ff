"""SPIFFE workloads as identities: X.509-SVIDs sign, and trust bundles say whom they belong to (docs/spiffe.md)."""
