"""When a key server is asked, what its silence and its lies can do, and for whom it speaks."""

import asyncio
import json
import threading
from typing import Any

import pytest

from tests.support.key_server import Answer, KeyServer
from watchword import ConfigurationError, SigningKey, Unavailable, VerificationKey
from watchword.jwk import to_jwk, to_jwks
from watchword.keys import thumbprint
from watchword.spi import KeyChain
from watchword.strict import base64url
from watchword_adapters.keys.https import Fetched, Https, NotFetchedError
from watchword_adapters.keys.jwks import JwksKeys

ALICE, BOB, MALLORY = "agent://acme/alice", "agent://acme/bob", "agent://elsewhere/mallory"
URL = "https://keys.acme.test/agents.jwks"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Warnings(list[tuple[str, dict[str, Any]]]):
    """The warnings that were given."""

    def __call__(self, event: str, **fields: str | float | None) -> None:
        """Note a warning."""
        self.append((event, fields))


class Origin:
    """What a key server says; ``lets`` is whether it answers, and ``asked`` are the ETags that it was asked with."""

    timeout = 5.0

    def __init__(self) -> None:
        self.body = b'{"keys": []}'
        self.etag: str | None = None
        self.max_age: float | None = None
        self.failure: Exception | None = None
        self.asked: list[str | None] = []
        self.lets = threading.Event()
        self.lets.set()

    def publish(self, *keys: VerificationKey) -> None:
        """Say this set from now on."""
        self.failure, self.body = None, to_jwks(keys).encode()

    def get(self, url: str, *, etag: str | None = None) -> Fetched:
        """See ``Https``."""
        assert url == URL
        self.asked.append(etag)
        self.lets.wait(30)
        if self.failure is not None:
            raise self.failure
        same = etag is not None and etag == self.etag
        return Fetched(None if same else self.body, self.etag, self.max_age)

    @property
    def count(self) -> int:
        """How often it was asked."""
        return len(self.asked)


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def warnings() -> Warnings:
    """Return a list of warnings."""
    return Warnings()


@pytest.fixture
def origin() -> Origin:
    """Return a key server."""
    return Origin()


@pytest.fixture
def source(origin: Origin, clock: Clock, warnings: Warnings) -> JwksKeys:
    """Return a source with its defaults, of one organisation."""
    return JwksKeys(URL, principals=["agent://acme/**"], https=origin, clock=clock, warn=warnings)


def key_of(principal: str = ALICE) -> VerificationKey:
    """Return a new key."""
    return SigningKey.generate().verification_key(principal)


async def settled(source: JwksKeys) -> None:
    """Wait until a fetch that is under way has ended."""
    while source._fetching is not None:
        await asyncio.wait([source._fetching])


async def test_nothing_is_fetched_before_somebody_asks(source: JwksKeys, origin: Origin) -> None:
    """A start does not depend on the server; the first question does, and is answered by it."""
    key = key_of()
    origin.publish(key)
    assert (origin.count, source.keys) == (0, ())
    assert await source.find(ALICE, key.key_id) == key
    assert (origin.count, source.keys) == (1, (key,))


async def test_a_flood_of_unknown_keys_is_one_fetch_in_each_cool_down(
    source: JwksKeys, origin: Origin, clock: Clock
) -> None:
    """However many keys strangers name, under whatever principal, the server is asked once in ten seconds (A21)."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    for number in range(1000):
        clock.now += 0.03
        assert await source.find((ALICE, BOB)[number % 2], b"%d" % number) is None
        assert await source.find(BOB, key.key_id) == key  # hers: an id under another's name
    assert origin.count == 3


async def test_a_server_that_fails_has_the_same_rest(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """What came of an attempt changes nothing: a server that is down is not asked again and again (A21)."""
    origin.failure = NotFetchedError("answered 503")
    for number in range(1000):
        clock.now += 0.03
        with pytest.raises(Unavailable, match="answered 503"):
            await source.find(ALICE, b"%d" % number)
    assert origin.count == 3


async def test_an_attempt_that_takes_long_is_followed_by_a_whole_rest(
    source: JwksKeys, origin: Origin, clock: Clock
) -> None:
    """The cool-down counts from the end of an attempt: a server that hangs is not asked without a pause."""
    origin.failure = NotFetchedError("takes longer than 5 s")
    origin.lets.clear()
    asking = asyncio.ensure_future(source.find(ALICE, b"one"))
    await asyncio.sleep(0)
    clock.now += 10
    origin.lets.set()
    with pytest.raises(Unavailable):
        await asking
    clock.now += 9
    with pytest.raises(Unavailable):
        await source.find(ALICE, b"one")
    assert origin.count == 1


async def test_questions_at_once_share_one_fetch(source: JwksKeys, origin: Origin) -> None:
    """Messages of many new agents wait for the same answer, and none of them is called unknown (A21)."""
    keys = [key_of(f"agent://acme/{number}") for number in range(20)]
    origin.publish(*keys)
    origin.lets.clear()
    asking = [asyncio.ensure_future(source.find(key.principal, key.key_id)) for key in keys]
    await asyncio.sleep(0)
    origin.lets.set()
    assert await asyncio.gather(*asking) == keys
    assert origin.count == 1


async def test_a_new_key_is_found_after_the_cool_down(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """One that was published is known ten seconds later at the most, however fresh the server calls what it said."""
    origin.max_age = 86_400
    old, new = key_of(), key_of()
    origin.publish(old)
    assert await source.find(ALICE, new.key_id) is None
    origin.publish(old, new)
    clock.now += 9.9
    assert await source.find(ALICE, new.key_id) is None
    clock.now += 0.1
    assert await source.find(ALICE, new.key_id) == new


@pytest.mark.parametrize(("said", "holds"), [(None, 300), (0, 10), (9, 10), (60, 60), (299, 299), (86_400, 300)])
async def test_a_withdrawn_key_is_refused_in_the_stated_time(
    source: JwksKeys, origin: Origin, clock: Clock, said: float | None, holds: float
) -> None:
    """The server's max-age counts from the cool-down to check_every, which counts where it says nothing (A23)."""
    origin.max_age = said
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.publish()
    clock.now += holds * 0.79
    assert await source.find(ALICE, key.key_id) == key
    assert origin.count == 1
    clock.now += holds * 0.21 + 0.01
    assert await source.find(ALICE, key.key_id) is None


async def test_known_keys_do_not_wait_for_a_set_that_is_fetched_in_time(
    source: JwksKeys, origin: Origin, clock: Clock
) -> None:
    """When four fifths of its time are over a set is fetched again, while messages go on (A21)."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.lets.clear()
    clock.now += 240
    assert await asyncio.wait_for(source.find(ALICE, key.key_id), 5) == key
    assert source._fetching is not None
    origin.publish()
    origin.lets.set()
    await settled(source)
    assert await source.find(ALICE, key.key_id) is None
    assert origin.count == 2


async def test_a_set_that_is_too_old_is_waited_for(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """After a quiet time the first message is not judged by what held before it (A23)."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.publish()
    clock.now += 3000
    assert await asyncio.gather(*(source.find(ALICE, key.key_id) for _ in range(5))) == [None] * 5
    assert origin.count == 2


async def test_known_keys_do_not_wait_for_a_server_that_is_down(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """One message waits for the first attempt that fails; later ones, however slow, hold up no known agent (A21)."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.failure = NotFetchedError("answered 503")
    clock.now += 300
    assert await source.find(ALICE, key.key_id) == key
    origin.lets.clear()
    try:
        for _ in range(20):
            clock.now += 10
            assert await asyncio.wait_for(source.find(ALICE, key.key_id), 5) == key
    finally:
        origin.lets.set()
    await settled(source)
    assert origin.count == 3  # the last one hung, and no other was begun beside it


async def test_the_last_good_set_is_kept_for_a_stated_time_and_then_nobody_is_known(
    source: JwksKeys, origin: Origin, clock: Clock, warnings: Warnings
) -> None:
    """In an outage known keys are known for an hour, nobody is called unknown, and then it fails closed (A32)."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.failure = NotFetchedError(f"{URL}: answered 503")
    for _ in range(12):
        clock.now += 300
        assert await source.find(ALICE, key.key_id) == key
        with pytest.raises(Unavailable, match="answered 503"):
            await source.find(ALICE, b"other")
        with pytest.raises(Unavailable, match="answered 503"):
            await source.find(BOB, key.key_id)
    clock.now += 1
    with pytest.raises(Unavailable, match="answered 503"):
        await source.find(ALICE, key.key_id)
    assert warnings == [("keys.jwks_not_fetched", {"failure": f"{URL}: answered 503", "kept_keys": 1})]
    origin.failure = None
    clock.now += 10
    assert await source.find(ALICE, key.key_id) == key


async def test_a_set_that_did_not_change_is_current_again(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """The server need not send it twice (RFC 9111 section 4.3): its word that it is the same one keeps it."""
    key = key_of()
    origin.publish(key)
    origin.etag = '"7"'
    for _ in range(100):
        assert await source.find(ALICE, key.key_id) == key
        clock.now += 300
    assert origin.asked == [None, *['"7"'] * 99]


async def test_what_was_said_of_a_set_holds_while_it_is_the_same(
    source: JwksKeys, origin: Origin, clock: Clock
) -> None:
    """An answer without max-age that nothing changed leaves the time that was stated before (RFC 9111, 4.3.4)."""
    origin.etag, origin.max_age = '"7"', 20
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.max_age = None
    for count in (2, 3, 4):
        clock.now += 20
        assert await source.find(ALICE, key.key_id) == key
        assert origin.count == count


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b'{"keys": [', b'{"keys": "none"}', b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"}]}', b'{"keys": [], "keys": []}',
        b'{"keys": [%s]}' % b",".join([b"{}"] * 1001), b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}',
    ],
)  # fmt: skip
async def test_a_poisoned_set_is_not_taken(source: JwksKeys, origin: Origin, clock: Clock, body: bytes) -> None:
    """Secrets, too many keys and what is no set leave the last good one; its ETag is not the one we ask with (A32)."""
    key = key_of()
    origin.publish(key)
    origin.etag = '"good"'
    assert await source.find(ALICE, key.key_id) == key
    origin.body, origin.etag = body, '"bad"'
    clock.now += 300
    assert await source.find(ALICE, key.key_id) == key
    with pytest.raises(Unavailable, match=r"agents\.jwks: "):
        await source.find(ALICE, b"other")
    clock.now += 300
    assert await source.find(ALICE, key.key_id) == key
    await settled(source)
    assert origin.asked == [None, '"good"', '"good"']


async def test_a_set_does_not_speak_for_agents_of_others(
    source: JwksKeys, origin: Origin, warnings: Warnings, clock: Clock
) -> None:
    """A key for an agent that the settings do not name is ignored, warned of once, and spoils no other (A32)."""
    ours, theirs = key_of(), key_of(MALLORY)
    origin.body = json.dumps({"keys": [to_jwk(ours), to_jwk(theirs), {"kty": "RSA", "n": "AQAB"}]}).encode()
    assert await source.find(ALICE, ours.key_id) == ours
    assert await source.find(MALLORY, theirs.key_id) is None
    assert await source.find(ALICE, theirs.key_id) is None
    clock.now += 300
    assert await source.find(ALICE, ours.key_id) == ours
    assert warnings == [
        (
            "keys.jwks_passed_over",
            {"url": URL, "of_another_kind": 1, "of_principals_not_named": 1, "claimed_principal": MALLORY},
        )
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"x": base64url(b"\1" + bytes(31))}, {"exp": "soon"}, {"kid": "k" * 200}, {"kid": 1}, {"d": "AA"},
        {"kty": "oct"}, {"x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}, {"alg": "RS256"}, {"principal": "agent://elsewhere/\0"},
    ],
)  # fmt: skip
async def test_a_broken_key_of_another_spoils_nothing_of_ours(
    source: JwksKeys, origin: Origin, warnings: Warnings, change: dict[str, Any]
) -> None:
    """Another who has a key in a shared set cannot silence our agents by what is wrong with it (A21, A32)."""
    ours = key_of()
    origin.body = json.dumps({"keys": [{**to_jwk(key_of(MALLORY)), **change}, to_jwk(ours)]}).encode()
    assert await source.find(ALICE, ours.key_id) == ours
    assert source.keys == (ours,)
    claimed = None if "principal" in change else MALLORY
    passed = {"url": URL, "of_another_kind": 0, "of_principals_not_named": 1, "claimed_principal": claimed}
    assert warnings == [("keys.jwks_passed_over", passed)]


async def test_one_organisation_cannot_take_the_name_of_another(origin: Origin, clock: Clock) -> None:
    """Of two sets in a chain neither can give a key to an agent of the other, whichever is asked first (A32)."""
    real, false = key_of(), VerificationKey.from_public_key(key_of().public, principal=ALICE, key_id=b"false")
    theirs = Origin()
    theirs.publish(false, key_of(MALLORY))
    origin.publish(real)
    chain = KeyChain(
        [
            JwksKeys(URL, principals=["agent://elsewhere/**"], https=theirs, clock=clock),
            JwksKeys(URL, principals=["agent://acme/**"], https=origin, clock=clock),
        ]
    )
    assert await chain.find(ALICE, b"false") is None
    assert await chain.find(ALICE, real.key_id) == real


async def test_agents_of_others_do_not_have_the_server_asked(source: JwksKeys, origin: Origin) -> None:
    """What it could not say anyway nobody asks it, so its outage is theirs only who depend on it (A21)."""
    origin.failure = NotFetchedError("answered 503")
    for number in range(100):
        assert await source.find(MALLORY, b"%d" % number) is None
    assert origin.count == 0


async def test_a_set_without_names_has_one_owner(origin: Origin, clock: Clock) -> None:
    """Keys that third parties publish belong to whom the settings say, and a key of someone else's does not."""
    alices, bobs = key_of(), key_of(BOB)
    nameless = {name: value for name, value in to_jwk(alices).items() if name != "principal"}
    origin.body = json.dumps({"keys": [nameless, to_jwk(bobs)]}).encode()
    source = JwksKeys(URL, owner=ALICE, https=origin, clock=clock)
    assert await source.find(ALICE, alices.key_id) == alices
    assert await source.find(BOB, bobs.key_id) is None
    assert await source.find(ALICE, bobs.key_id) is None


async def test_a_set_without_names_and_owner_is_refused(source: JwksKeys, origin: Origin) -> None:
    """Nobody guesses whose keys they are: the error says what to write."""
    origin.body = json.dumps({"keys": [{**to_jwk(key_of()), "principal": None}]}).encode()
    with pytest.raises(Unavailable, match='key 1: no "principal"'):
        await source.find(ALICE, b"one")


async def test_a_server_that_never_answers_is_waited_for_within_the_limit(
    source: JwksKeys, origin: Origin, warnings: Warnings
) -> None:
    """A name server may be slower than any limit of ours: the caller gets Unavailable in time nonetheless."""
    origin.lets.clear()
    origin.timeout = 0.01
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"takes longer than 0\.01 s"):
                await source.find(ALICE, b"one")
        assert (origin.count, len(warnings)) == (1, 1)
    finally:
        origin.lets.set()
    await settled(source)
    assert await source.find(ALICE, b"one") is None


async def test_a_question_given_up_leaves_the_source_in_order(source: JwksKeys, origin: Origin) -> None:
    """Cancelling the caller neither cancels the fetch for the others nor loses what was fetched."""
    key = key_of()
    origin.publish(key)
    origin.lets.clear()
    first, second = (asyncio.ensure_future(source.find(ALICE, key.key_id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    origin.lets.set()
    assert await second == key


def test_a_source_outlives_an_event_loop(source: JwksKeys, origin: Origin, clock: Clock) -> None:
    """A fetch that an ended loop left behind neither blocks the next loop nor counts as an answer there."""
    key = key_of()
    origin.publish(key)
    origin.lets.clear()

    async def give_up() -> None:
        asking = asyncio.ensure_future(source.find(ALICE, key.key_id))
        await asyncio.sleep(0)
        asking.cancel()

    ended = asyncio.new_event_loop()
    ended.run_until_complete(give_up())
    ended.close()
    origin.lets.set()
    with pytest.raises(Unavailable, match="not fetched for longer than keep"):
        asyncio.run(source.find(ALICE, key.key_id))
    clock.now += 10
    assert asyncio.run(source.find(ALICE, key.key_id)) == key


async def test_a_late_answer_of_an_earlier_fetch_is_not_taken(source: JwksKeys, origin: Origin) -> None:
    """Only the fetch that was begun last changes the set; a cancelled one changes nothing."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    late: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    late.set_result(None)
    source._take(late)
    source._fetching = asyncio.get_running_loop().create_future()
    source._fetching.cancel()
    source._take(source._fetching)
    assert source.keys == (key,)


async def test_a_surprise_is_told_by_its_kind(source: JwksKeys, origin: Origin) -> None:
    """An error that nobody foresaw is an outage like others, and its text, which may hold anything, is not shown."""
    origin.failure = MemoryError("secret detail")
    with pytest.raises(Unavailable, match=r"agents\.jwks: MemoryError$"):
        await source.find(ALICE, b"one")


async def test_a_renewed_source_is_asked_at_once_and_forgets_nothing(
    source: JwksKeys, origin: Origin, clock: Clock
) -> None:
    """A reload has the next message judged by what is there now; the server has its rest all the same."""
    key = key_of()
    origin.publish(key)
    assert await source.find(ALICE, key.key_id) == key
    origin.publish()
    source.renew()
    assert await source.find(ALICE, key.key_id) == key
    clock.now += 10
    assert await source.find(ALICE, key.key_id) is None
    assert origin.count == 2


async def test_a_web_bot_auth_directory_is_read(
    server: KeyServer, trusting: Https, clock: Clock, warnings: Warnings
) -> None:
    """A bot's directory is such a set: its keys have thumbprints for ids, and the owner that the settings name."""
    key = SigningKey.generate()
    thumb = thumbprint(key.public)
    path = "/.well-known/http-message-signatures-directory"
    entry = {**to_jwk(key.verification_key(ALICE)), "kid": thumb, "nbf": 1_712_793_600, "exp": 4_102_444_800}
    del entry["principal"]
    kind = {"Content-Type": "application/http-message-signatures-directory+json", "Cache-Control": "max-age=86400"}
    server.answers[path] = Answer(json.dumps({"keys": [entry], "purpose": "rag"}).encode(), headers=kind)
    source = JwksKeys(server.url(path), owner=ALICE, https=trusting, clock=clock, warn=warnings)
    found = await source.find(ALICE, thumb.encode())
    assert found is not None
    assert (found.public_bytes, found.not_before, found.not_after) == (
        key.verification_key(ALICE).public_bytes, 1_712_793_600, 4_102_444_800,
    )  # fmt: skip
    assert "application/http-message-signatures-directory+json" in server.asked[0][1]["accept"]
    assert not warnings


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"url": "http://keys.acme.test/a"}, r"url = 'http://keys.acme.test/a': write https://"),
        ({"principals": ()}, "write whom it may speak for"),
        ({"owner": MALLORY}, "principal 'agent://elsewhere/mallory' is not covered by principals"),
        ({"cool_down": 0.5}, "cool_down of 0.5 s: choose 1 s to 86400 s"),
        ({"check_every": 5.0}, "check_every of 5 s: choose 10 s to 86400 s"),
        ({"check_every": float("nan")}, "check_every of nan s"),
        ({"keep": 299.0}, "keep of 299 s: choose 300 s to 604800 s"),
        ({"max_keys": 0}, "max_keys of 0: choose 1 to 20000"),
    ],
)
def test_a_wrong_set_up_is_refused_in_one_line(options: dict[str, Any], complaint: str) -> None:
    """At the start a mistake is an error that says what to write."""
    with pytest.raises(ConfigurationError, match=complaint):
        JwksKeys(**{"url": URL, "principals": ["agent://acme/**"]} | options)
