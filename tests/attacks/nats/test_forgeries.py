"""A01 to A11 on a real nats-server: what was not written, or not so, by whom it says."""

import base64
from collections.abc import Callable

import cbor2
import pytest

from tests.integration.nats.world import CLOUD, MALLORY, PLANNER, World, block, raw, resend, until
from watchword import Reason, SigningKey
from watchword.spi import Channel, Message, Signer

Unique = Callable[[str], str]


async def test_a01_unsigned_message_is_dropped(world: World, unique: Unique) -> None:
    """What nobody signed reaches no handler."""
    duel = await world.duel(unique("a01"))
    await duel.drops(duel.attacker.publish(duel.subject, b"forged"), Reason.UNSIGNED)


async def test_a01_stripped_signature_is_dropped(world: World, unique: Unique) -> None:
    """Taking the signature off a good message does not downgrade it."""
    duel = await world.duel(unique("a01"))
    original = await duel.capture(headers={"kind": "order"})
    await duel.drops(resend(duel.attacker, original, headers={"kind": "order"}), Reason.UNSIGNED)


async def test_a02_altered_value_is_dropped(world: World, unique: Unique) -> None:
    """Another payload under a good signature reaches no handler."""
    duel = await world.duel(unique("a02"))
    original = await duel.capture()
    await duel.drops(resend(duel.attacker, original, data=b"scale down"), Reason.ALTERED)


@pytest.mark.parametrize("change", ["altered", "removed", "duplicated"])
async def test_a02_altered_headers_are_dropped(world: World, unique: Unique, change: str) -> None:
    """A covered header that was changed, removed or doubled is seen, where nats-py would show the last one only."""
    duel = await world.duel(unique("a02"))
    original = await duel.capture(headers={"kind": "order"})
    envelope = ("watchword", (original.headers or {})["watchword"])
    lines = {
        "altered": [("kind", "bribe"), envelope],
        "removed": [envelope],
        "duplicated": [("kind", "order"), ("kind", "bribe"), envelope],
    }[change]
    await duel.drops(raw(duel.attacker, duel.subject, block(*lines), original.data), Reason.ALTERED)


async def test_a02_reordered_headers_are_dropped(world: World, unique: Unique) -> None:
    """The order of covered headers is covered too."""
    duel = await world.duel(unique("a02"))
    original = await duel.capture(headers={"one": "1", "two": "2"})
    turned = dict(reversed((original.headers or {}).items()))
    await duel.drops(resend(duel.attacker, original, headers=turned), Reason.ALTERED)


async def test_a03_added_header_is_invisible(world: World, unique: Unique) -> None:
    """A header that the sender did not sign is not shown (trace headers apart), where a plain client shows it."""
    duel = await world.duel(unique("a03"))
    channel = Channel("nats", "prod", duel.subject)
    signed = await duel.planner.watchword.signer.sign(Message(channel=channel, value=b"scale up"))
    envelope = (signed.header[1] or b"").decode()
    added = {"watchword": envelope, "role": "admin", "traceparent": "00-1-2-03"}
    await duel.attacker.publish(duel.subject, b"scale up", headers=added)
    await until(lambda: duel.unprotected and duel.delivered)
    assert (duel.unprotected[0].headers or {})["role"] == "admin"
    assert duel.delivered[0].headers == {"traceparent": "00-1-2-03"}
    assert duel.delivered[0].header == duel.delivered[0].headers


async def test_a04_empty_for_a_value_is_dropped(world: World, unique: Unique) -> None:
    """Emptying a message (a deletion, to many consumers) is an alteration like any other."""
    duel = await world.duel(unique("a04"))
    original = await duel.capture()
    await duel.drops(resend(duel.attacker, original, data=b""), Reason.ALTERED)


async def test_a05_bytes_moved_between_parts_are_dropped(world: World, unique: Unique) -> None:
    """Bytes moved from a header to the payload, or from one header to the next, do not verify."""
    duel = await world.duel(unique("a05"))
    original = await duel.capture(b"ab", headers={"one": "cd", "two": "ef"})
    envelope = {"watchword": (original.headers or {})["watchword"]}
    for one, two, data in (("cda", "ef", b"b"), ("c", "def", b"ab")):
        attack = resend(duel.attacker, original, data=data, headers={"one": one, "two": two, **envelope})
        await duel.drops(attack, Reason.ALTERED)


@pytest.mark.parametrize("second", ["watchword", "Watchword", "WATCHWORD"])
@pytest.mark.parametrize("good", ["first", "last"])
async def test_a06_two_envelopes_are_malformed(world: World, unique: Unique, second: str, good: str) -> None:
    """Two envelopes are malformed in any order and letter case, also where nats-py would hide the first."""
    duel = await world.duel(unique("a06"))
    original = await duel.capture()
    lines = [(second, "forged"), ("watchword", (original.headers or {})["watchword"])]
    attack = raw(duel.attacker, duel.subject, block(*(lines if good == "last" else lines[::-1])), original.data)
    await duel.drops(attack, Reason.MALFORMED)


async def test_a06_half_and_oversize_envelopes_are_malformed(world: World, unique: Unique) -> None:
    """Half an envelope, one over the limit, and a header block over the limit are malformed."""
    duel = await world.duel(unique("a06"))
    original = await duel.capture()
    envelope = (original.headers or {})["watchword"]
    for value in (envelope[: len(envelope) // 2], "A" * 6000, ""):
        await duel.drops(resend(duel.attacker, original, headers={"watchword": value}), Reason.MALFORMED)
    padded = {"watchword": envelope, **{f"pad-{n}": "x" * 1000 for n in range(70)}}
    await duel.drops(resend(duel.attacker, original, headers=padded), Reason.MALFORMED)


async def test_a07_flipped_characters_never_deliver(world: World, unique: Unique) -> None:
    """An envelope with any character changed is rejected for some reason, and the client continues."""
    duel = await world.duel(unique("a07"))
    original = await duel.capture()
    envelope = (original.headers or {})["watchword"]
    for at in range(0, len(envelope), 3):
        changed = envelope[:at] + ("A" if envelope[at] != "A" else "B") + envelope[at + 1 :]
        await duel.attacker.publish(duel.subject, original.data, headers={"watchword": changed})
    await duel.attacker.flush()
    await duel.capture(b"honest")
    assert [msg.data for msg in duel.delivered] == [b"scale up", b"honest"]


async def test_a08_algorithm_of_the_message_is_ignored(world: World, unique: Unique) -> None:
    """A message that names another algorithm than its key's is rejected, whatever its signature is."""
    duel = await world.duel(unique("a08"))
    original = await duel.capture()
    text = (original.headers or {})["watchword"]
    version, claims, proof = cbor2.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    for algorithm in (0, 5, -7, -9):  # none, HMAC 256, ES256, ESP256
        header = cbor2.loads(proof[0]) | {1: algorithm}
        forged = cbor2.dumps([version, claims, [cbor2.dumps(header, canonical=True), *proof[1:]]])
        value = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
        attack = resend(duel.attacker, original, headers={"watchword": value})
        await duel.drops(attack, Reason.BAD_SIGNATURE)


async def test_a09_unknown_key_is_dropped(world: World, unique: Unique) -> None:
    """The attacker's own key proves nothing."""
    duel = await world.duel(unique("a09"))
    signer = Signer(realm="prod", principal=PLANNER, key=SigningKey.generate(), clock=duel.guard.clock)
    signed = await signer.sign(Message(channel=Channel("nats", "prod", duel.subject), value=b"forged"))
    headers = {"watchword": (signed.header[1] or b"").decode()}
    await duel.drops(duel.attacker.publish(duel.subject, b"forged", headers=headers), Reason.UNKNOWN_KEY)


async def test_a10_one_agent_cannot_speak_as_another(world: World, unique: Unique) -> None:
    """A compromised agent that signs in the planner's name with its own key is found out."""
    duel = await world.duel(unique("a10"))
    signer = Signer(realm="prod", principal=PLANNER, key=world.signing[MALLORY], clock=duel.guard.clock)
    signed = await signer.sign(Message(channel=Channel("nats", "prod", duel.subject), value=b"forged"))
    headers = {"watchword": (signed.header[1] or b"").decode()}
    await duel.drops(duel.attacker.publish(duel.subject, b"forged", headers=headers), Reason.WRONG_PRINCIPAL)


async def test_a11_transplanted_envelope_is_dropped(world: World, unique: Unique) -> None:
    """The envelope of one message is worth nothing on another."""
    duel = await world.duel(unique("a11"))
    first, second = await duel.capture(b"first"), await duel.capture(b"second")
    await duel.drops(resend(duel.attacker, second, headers=first.headers), Reason.ALTERED)


async def test_a36_message_for_another_agent_is_dropped(world: World, unique: Unique) -> None:
    """On a shared subject only the agent that a message is addressed to acts on it; so too when it is sent again."""
    duel = await world.duel(unique("a36"), principal=MALLORY)
    await duel.drops(duel.planner.publish(duel.subject, b"for cloud", recipient=CLOUD), Reason.WRONG_RECIPIENT)
    captured = next(msg for msg in duel.unprotected if msg.data == b"for cloud")
    await duel.drops(resend(duel.attacker, captured), Reason.WRONG_RECIPIENT)
