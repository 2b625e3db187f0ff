"""What travels between processes: errors do, proofs do not."""

import copy
import pickle
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

import watchword
import watchword_adapters
from tests.unit.core.world import World, kafka, press
from watchword import ConfigurationError, Reason, Rejected, SigningError, Unavailable, VerifiedMessage, WatchwordError
from watchword.errors import Forgotten, Pending, Shed
from watchword.replay import ReaderForgottenError, StoreError
from watchword_adapters.kafka import (
    AckMismatchError,
    DeserializationError,
    SendTypeError,
    SendValueError,
    TooLargeError,
)
from watchword_adapters.kafka.records import UnavailableError, VerifiedRecord
from watchword_adapters.nats.errors import BadHeader, BadName, BadPattern, BadSubject, NoTls, PayloadTooLarge
from watchword_adapters.nats_rights import NotAllowed
from watchword_adapters.signers.pkcs11_module import NoTokenError
from watchword_adapters.stores.batched import NoAnswerError
from watchword_adapters.stores.nats_bucket import RightError

ERRORS: list[Exception] = [
    WatchwordError("text"),
    ConfigurationError("text"),
    SigningError("text"),
    Rejected(Reason.STALE, "9 s old", channel="kafka://prod/t", claimed_principal="agent://a"),
    Unavailable("keys", "TimeoutError"),
    StoreError("text"),
    ReaderForgottenError("kafka:group"),
    RightError("text"),
    NoAnswerError("text"),
    NoTokenError("text"),
    AckMismatchError("text"),
    UnavailableError("replay", "text"),
    TooLargeError("text"),
    SendTypeError("text"),
    SendValueError("text"),
    BadSubject("text"),
    BadPattern("text"),
    BadHeader("text", "name"),
    BadName("text"),
    NoTls("nats:4222"),
    PayloadTooLarge("text"),
    NotAllowed("publish to a", "subscribe to b"),
]


def shown(error: BaseException) -> tuple[Any, ...]:
    """Return what a handler sees of an error."""
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_between_processes(error: Exception) -> None:
    """Raised in a worker process it is the same error in its parent: reason, what failed, channel, text."""
    error.add_note("a note")
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own
        assert shown(made) == shown(error)


def test_every_error_was_tried() -> None:
    """No error of ours is forgotten above."""
    for package in (watchword, watchword_adapters):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    found, queue = set(), [WatchwordError]
    for one in queue:
        queue += one.__subclasses__()
        found.add(one)
    ours = {error for error in found if error.__module__.partition(".")[0] in {"watchword", "watchword_adapters"}}
    assert ours - {type(error) for error in ERRORS} == {Forgotten, Pending, Shed, DeserializationError}


def test_what_concerns_one_process_travels_as_unavailable() -> None:
    """No other process can wait for what this one looks up, or read this one's memory again."""
    for error in (Pending(object()), Shed("text"), Forgotten()):
        made = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert shown(made) == shown(Unavailable(error.what, error.detail))


def record(verified: VerifiedMessage) -> VerifiedRecord:
    """Return a verified record."""
    return VerifiedRecord("t", 0, 7, 0, 0, b"k", b"v", None, 1, 1, (("h", b"x"),), verified)


def test_a_record_travels_without_its_proof() -> None:
    """Of a deserializer's failure the record arrives as the client's own: what it was elsewhere proves nothing here."""
    error = DeserializationError(record(World().verify(press(kafka()))))
    made = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(made), str(made)) == (DeserializationError, str(error))
    assert type(made.record) is ConsumerRecord
    assert (made.record.topic, made.record.offset, made.record.value) == ("t", 7, b"v")


def test_a_proof_is_not_pickled() -> None:
    """A verified message of another process would be whatever its bytes say."""
    verified = World().verify(press(kafka()))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(
            TypeError, match="a VerifiedMessage cannot be pickled: send the message and verify it there"
        ):
            pickle.dumps(verified, protocol)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(record(verified))


def test_a_proof_is_not_made_of_state() -> None:
    """Neither by what unpickling calls nor by a class that inherits from it."""
    verified = World().verify(press(kafka()))
    forged: Any = VerifiedMessage.__new__(VerifiedMessage)
    with pytest.raises(TypeError, match=r"made only by Verifier\.verify"):
        forged.__setstate__(["agent://acme/root"] * 13)
    with pytest.raises(TypeError, match=r"made only by Verifier\.verify"):
        type("Mine", (VerifiedMessage,), {"__post_init__": lambda _: None})
    assert copy.copy(verified) is verified
    assert copy.deepcopy({"kept": verified})["kept"] is verified
