"""Messages, channels and names."""

import copy
from dataclasses import FrozenInstanceError, replace

import pytest

from tests.unit.core.world import World, kafka, nats, press
from watchword import ConfigurationError, SigningError, VerifiedMessage
from watchword.message import CHANNELS_KEPT, channel_of, check_realm, is_principal, is_subject
from watchword.spi import Channel


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("kafka://prod/tasks", "tasks"),
        ("nats://p-1/tasks.scale", "tasks.scale"),
        ("nats://prod/a/b//c", "a/b//c"),
        ("kafka://prod/a://b", "a://b"),
    ],
)
def test_a_channel_is_read_and_written_alike(uri: str, name: str) -> None:
    """Promise (A30): a channel's URI says which bus, realm and name, whatever characters the name holds."""
    channel = Channel.parse(uri)
    assert (channel.uri, channel.name, str(channel)) == (uri, name, uri)


@pytest.mark.parametrize(
    "uri",
    ["", "kafka", "kafka://", "kafka://prod", "kafka://prod/", "kafka:///tasks", "kafka://Prod/t", "amqp://prod/t",
     "KAFKA://prod/t", "nats://a_b/t", "kafka://" + "r" * 64 + "/t", "kafka://prod\n/t"],
)  # fmt: skip
def test_what_is_no_channel_is_refused(uri: str) -> None:
    """Promise: a URI of another shape is refused with a text that shows the right one."""
    with pytest.raises(ValueError, match="kafka"):
        Channel.parse(uri)


@pytest.mark.parametrize("topic", ["t", "a.b_c-D9", "x" * 249])
def test_topics_that_kafka_allows_can_be_signed(topic: str) -> None:
    """Promise: every legal topic can be signed."""
    Channel("kafka", "prod", topic).check_signable()


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "x" * 250, "é", "a\n"])
def test_other_topics_cannot(topic: str) -> None:
    """Promise (A30): a topic that Kafka would refuse is refused at signing."""
    with pytest.raises(SigningError):
        Channel("kafka", "prod", topic).check_signable()


@pytest.mark.parametrize("subject", ["a", "a.b.c", "$JS.ACK.x", "a/b:c@d", "_INBOX.x*y"])
def test_subjects_that_can_be_published_to_can_be_signed(subject: str) -> None:
    """Promise: every subject that one can publish to can be signed."""
    Channel("nats", "prod", subject).check_signable()


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>", "a b", "a\r\nb", "a\tb", "é", "a\x7f"]
)
def test_other_subjects_cannot(subject: str) -> None:
    """Promise (A30): wildcards, blanks, control characters and empty tokens are refused at signing."""
    assert not is_subject(subject)
    with pytest.raises(SigningError):
        Channel("nats", "prod", subject).check_signable()


def test_a_channel_name_is_bounded() -> None:
    """Promise: a name that would fill the envelope is refused with its limit."""
    with pytest.raises(SigningError, match="1024"):
        Channel("nats", "prod", "a" * 1100).check_signable()


@pytest.mark.parametrize("name", ["a", "agent://acme/planner", "é", "spiffe://acme/ns/x y", "x" * 255, "é" * 127])
def test_principals(name: str) -> None:
    """Promise: any Unicode text of 1 to 255 bytes may name an agent."""
    assert is_principal(name)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "\x00", "a\x7f", "x" * 256, "é" * 128, "\ud800", "a\n"])
def test_what_is_no_principal(name: str) -> None:
    """Promise: control characters, surrounding blanks, lone surrogates and overlong names name nobody."""
    assert not is_principal(name)


@pytest.mark.parametrize("realm", ["", "Prod", "a/b", "a.b", "x" * 64, "prod\n"])
def test_realms_are_checked(realm: str) -> None:
    """Promise: a realm that could make two channels look alike is refused, with what to write."""
    with pytest.raises(ConfigurationError, match="realm"):
        check_realm(realm)


def test_a_verified_message_is_not_made_by_hand() -> None:
    """Promise: only a verifier makes a VerifiedMessage; neither the constructor nor replace() does."""
    verified = World().verify(press(kafka()))
    with pytest.raises(TypeError, match="Verifier"):
        VerifiedMessage(
            principal="p", key_id="k", id="00", channel=verified.channel, value=None, key=None, headers=(),
            issued_at=0, redelivered=False,
        )  # fmt: skip
    with pytest.raises(TypeError, match="Verifier"):
        replace(verified, principal="agent://acme/root")
    with pytest.raises(FrozenInstanceError):
        verified.principal = "agent://acme/root"  # type: ignore[misc] # exactly what must fail
    assert copy.copy(verified) == verified


def test_repr_shows_no_payload() -> None:
    """Promise (A31): neither a message nor a verified one shows value, key or header values."""
    message = nats(value=b"s3cret-value", key=b"s3cret-key", headers=(("x", b"s3cret-header"),))
    verified = World().verify(press(message))
    assert "s3cret" not in f"{message!r} {verified!r} {nats(value=None)!r}"


def test_channels_are_kept_in_bounds() -> None:
    """Promise (A20): a flood of subjects takes bounded room, and every channel is the right one all the same."""
    for number in range(3 * CHANNELS_KEPT):
        assert channel_of("nats", "prod", f"tasks.{number}") == Channel("nats", "prod", f"tasks.{number}")
    assert channel_of("nats", "prod", "tasks.0") is channel_of("nats", "prod", "tasks.0")
    assert channel_of("kafka", "prod", "tasks.0") != channel_of("nats", "prod", "tasks.0")
    assert channel_of.cache_info().currsize == CHANNELS_KEPT
