"""Kafka through aiokafka: a signing producer and a verifying consumer, as subclasses or by ``wrap``."""

from aiokafka.structs import TopicPartition

from watchword_adapters.kafka.acks import AckMismatchError
from watchword_adapters.kafka.batch import SigningBatch
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.entries import Recipient, SendTypeError, SendValueError, TooLargeError
from watchword_adapters.kafka.producer import SigningProducer
from watchword_adapters.kafka.quarantine import KafkaQuarantine
from watchword_adapters.kafka.records import DeliveredRecord, DeserializationError, ObservedRecord, VerifiedRecord
from watchword_adapters.kafka.wrapping import wrap

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
    "wrap",
]
