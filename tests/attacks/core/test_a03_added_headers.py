"""A03: a header that the sender did not sign."""

from dataclasses import replace

from tests.unit.core.world import World, kafka, nats, signed


def test_a03_added_headers_are_invisible() -> None:
    """Promise: the attacker's header is in the message, and not in what the handler sees; trace headers apart."""
    added = (("authorization", b"root"), ("Content-Type ", b"x"), ("traceparent", b"00-1"), ("tracestate", b"s"))
    for message in (signed(kafka()), signed(nats())):
        forged = replace(message, headers=(*added, *message.headers))
        seen = dict(World().verify(forged).headers)
        assert seen.pop("traceparent") == b"00-1"
        assert seen.pop("tracestate") == b"s"
        assert seen == dict(message.headers[:-1])
