"""The order in which the ways to get a broker are tried."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.brokers import kafka, nats, redis
from tests.brokers.broker import Broker, Bus, NotHereError

Way = Callable[[Path], Broker]

# The real thing, best first: also what a run with WATCHWORD_TEST_BROKERS=required accepts.
WAYS: Mapping[Bus, Sequence[Way]] = {
    "kafka": [kafka.address_given, kafka.container, kafka.jars],
    "nats": [nats.address_given, nats.container, nats.wheel],
    "redis": [redis.address_given, redis.container, redis.binary, redis.wheel],
}
STAND_INS: Mapping[Bus, Sequence[Way]] = {"kafka": [kafka.embedded], "nats": [], "redis": []}


def start(bus: Bus, directory: Path, *, required: bool) -> tuple[Broker, list[str]]:
    """Start the best broker available; return it with the reasons why better ways were passed over.

    `required` admits no stand-in. Raises `NotHereError` when nothing is left.
    """
    undetermined: list[str] = []
    for way in WAYS[bus] if required else [*WAYS[bus], *STAND_INS[bus]]:
        try:
            return way(directory), undetermined
        except (NotHereError, OSError) as error:
            if way.__name__ != "address_given":
                undetermined.append(f"{bus}: no {way.__name__}: {error}")
    raise NotHereError("\n".join([f"no {bus} broker is available here", *undetermined]))
