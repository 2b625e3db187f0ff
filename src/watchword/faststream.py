"""FastStream: ``KafkaBroker`` and ``NatsBroker`` in place of its own; handlers get what verified, and who wrote it."""

from watchword.extras import told

try:
    from watchword_adapters.faststream import (
        KafkaBroker,
        NatsBroker,
        Principal,
        Principals,
        TestKafkaBroker,
        TestNatsBroker,
        Verified,
        VerifiedBatch,
        verified_of,
    )
except ImportError as error:
    raise told(error, "faststream") from None  # it brings both clients, too

__all__ = [
    "KafkaBroker",
    "NatsBroker",
    "Principal",
    "Principals",
    "TestKafkaBroker",
    "TestNatsBroker",
    "Verified",
    "VerifiedBatch",
    "verified_of",
]
