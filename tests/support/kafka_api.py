"""The one place where tests of the Kafka reader name the package that it lives in."""

from watchword_adapters.kafka import ObservedRecord, SigningProducer, VerifiedRecord, VerifyingConsumer, wrap

__all__ = ["ObservedRecord", "SigningProducer", "VerifiedRecord", "VerifyingConsumer", "wrap"]
