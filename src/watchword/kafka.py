"""Kafka, with aiokafka: a producer that signs and a consumer that verifies, as subclasses or through ``wrap``."""

from watchword.extras import told

try:
    from watchword_adapters.kafka import (
        AckMismatchError,
        DeliveredRecord,
        DeserializationError,
        KafkaQuarantine,
        ObservedRecord,
        Recipient,
        SendTypeError,
        SendValueError,
        SigningBatch,
        SigningProducer,
        TooLargeError,
        TopicPartition,
        VerifiedRecord,
        VerifyingConsumer,
        wrap,
    )
    from watchword_adapters.kafka.redrive import copies, redrive
except ModuleNotFoundError as error:
    raise told(error) from None

__all__ = [
    "AckMismatchError",
    "DeliveredRecord",
    "DeserializationError",
    "KafkaQuarantine",
    "ObservedRecord",
    "Recipient",
    "SendTypeError",
    "SendValueError",
    "SigningBatch",
    "SigningProducer",
    "TooLargeError",
    "TopicPartition",
    "VerifiedRecord",
    "VerifyingConsumer",
    "copies",
    "redrive",
    "wrap",
]
