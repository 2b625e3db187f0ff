"""Real holders of keys for the tests: a SoftHSM token, an OpenBao server, and moto's KMS; and a proxy that meddles.

SoftHSM 2 comes with ``apt-get install softhsm2`` (.ci/run does so), the others with wheels of the ``dev`` group. KMS
proper is not available: P-256 is signed by moto, and Ed25519, which moto lacks, by a few lines of ours that
speak like it.
"""
