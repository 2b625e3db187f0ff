"""FastStream: ``KafkaBroker`` and ``NatsBroker`` replace its own; handlers get verified messages and principals."""

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
    raise told(error, "faststream") from None  # this extra installs both clients too

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
