"""A09, A21 and A23, on identities from elsewhere: certificates that attackers show, and keys that were taken away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support import nats_tokens
from tests.support.board import Board
from tests.support.nats_tokens import Holder
from tests.support.workload_api import Authority, Svid, p256
from tests.unit.spiffe.world import CLOUD, PLANNER, Clock, Warnings, show, until
from watchword import Policy, Reason, Rejected, SigningKey, Unavailable, VerificationKey, Watchword
from watchword.keys import thumbprint_id
from watchword.spi import Channel, Message, Position
from watchword_adapters.keys.files import FileKeys
from watchword_adapters.nkeys.source import UserTokens
from watchword_adapters.spiffe.bundles import FileBundles
from watchword_adapters.spiffe.source import FRESH, SpiffeKeys

TASKS = Channel.parse("nats://prod/tasks")


class World:
    """A reader of workloads' messages, the board on which they show their certificates, and its bundle."""

    def __init__(self, directory: Path) -> None:
        self.root, self.board, self.warnings = Authority(), Board(), Warnings()
        self.clock, self.wall = Clock(), Clock(datetime.now(UTC).timestamp())
        self.board.clock = self.wall
        self.path = directory / "bundle.pem"
        self.trust(self.root)
        bundles = FileBundles({"acme.example": self.path}, max_staleness=3600.0, warn=self.warnings, clock=self.clock)
        self.keys = SpiffeKeys(
            realm="prod",
            bundles=bundles,
            open_presence=self.board.open,
            policy=Policy(),
            warn=self.warnings,
            check_every=0.05,
            wall_clock=self.wall,
            clock=self.clock,
        )
        self.reader = Watchword(realm="prod", keys=self.keys, clock=self.wall)
        self._placed = 0

    def trust(self, *roots: Authority) -> None:
        """Rewrite the bundle, in one step."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(b"".join(root.pem for root in roots))
        beside.replace(self.path)

    async def signed(self, private: Any, principal: str = PLANNER) -> Message:
        """Return a message of someone's, as a stream has it."""
        return await signed(private, principal, self.wall, self.place())

    def place(self) -> int:
        """Return the next position."""
        self._placed += 1
        return self._placed

    async def ending(self, message: Message) -> str:
        """Return how a message ends."""
        return await ending(self.reader, message)


async def signed(private: Any, principal: str, clock: Clock, place: int) -> Message:
    """Return a signed message at a place."""
    agent = Watchword(realm="prod", principal=principal, key=SigningKey(private), clock=clock)
    message = Message(channel=TASKS, value=b"{}", position=Position("tasks", place), appended_at=clock())
    header = (await agent.signer.sign(message)).header
    return replace(message, headers=(header,))


async def ending(reader: Watchword, message: Message) -> str:
    """Return how a message ends for a reader."""
    try:
        return (await reader.verifier.verify(message)).principal
    except Rejected as verdict:
        return str(verdict.reason)
    except Unavailable:
        return "unavailable"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Give a world."""
    made = World(tmp_path)
    yield made
    made.keys.close()


def taken_at_their_word(chain: list[bytes], *_: object, **__: object) -> VerificationKey:
    """Return the key of a certificate that nobody has looked at: what a reader would do without the check."""
    leaf = x509.load_der_x509_certificate(chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    public: Any = leaf.public_key()
    return VerificationKey.from_public_key(
        public,
        principal=names.get_values_for_type(x509.UniformResourceIdentifier)[0],
        key_id=thumbprint_id(public),
        not_after=int(leaf.not_valid_after_utc.timestamp()),
    )


def forgeries(world: World) -> list[tuple[str, Svid]]:
    """Return certificates that say that an attacker's key is the planner's."""
    own = p256()
    workload = Authority(above=world.root, name="mallory", is_authority=False, uri="spiffe://acme.example/mallory")
    other = Authority("other.example", above=world.root, name="other")
    return [
        ("of its own", Authority(name="workload", private=own).issue(private=own)),
        ("by an authority of its own", Authority(name="root").issue()),
        ("by a workload's certificate", workload.issue()),
        ("by another trust domain", other.issue(uris=[PLANNER])),
        ("with the planner's name beside its own", world.root.issue("/mallory", uris=[PLANNER, CLOUD])),
    ]


@pytest.mark.parametrize("number", range(5))
async def test_a_certificate_of_the_attackers_own_is_no_key(
    world: World, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A09: whatever it shows on the channel, as signed by that very key: what it then signs is unknown_key.

    Did a reader take certificates at their word, each of these would speak as the planner.
    """
    name, svid = forgeries(world)[number]
    await show(world.board, svid)
    message = await world.signed(svid.private)
    assert await world.ending(message) == Reason.UNKNOWN_KEY, name
    with monkeypatch.context() as without:
        without.setattr("watchword_adapters.spiffe.source.verified_key", taken_at_their_word)
        world.trust(world.root, Authority(name="news, so that all is looked at again"))
        await until(lambda: world.keys.keys)
        assert await world.ending(await world.signed(svid.private)) == PLANNER, name


async def test_a_certificate_ends_while_messages_wait(world: World) -> None:
    """A23: what was appended while it held passes later, too; what was appended after its end does not."""
    svid = world.root.issue(life=timedelta(minutes=2))
    await show(world.board, svid)
    before = await world.signed(svid.private)
    world.wall.now += 130.0
    after = await world.signed(svid.private)
    assert [await world.ending(before), await world.ending(after)] == [PLANNER, Reason.KEY_NOT_VALID]


async def test_who_left_the_bundle_speaks_no_more(world: World) -> None:
    """A23: within one look at the bundle, also for what was signed before, and whatever is shown again."""
    svid, second = world.root.issue(), Authority(name="second")
    await show(world.board, svid)
    assert await world.ending(await world.signed(svid.private)) == PLANNER
    waiting = await world.signed(svid.private)
    world.trust(second)
    await until(lambda: not world.keys.keys)
    await show(world.board, svid)
    world.clock.now += FRESH
    assert await world.ending(waiting) == Reason.UNKNOWN_KEY


async def test_a_flood_of_invented_keys_costs_one_reading_a_second(world: World) -> None:
    """A21: honest agents are delivered meanwhile, one with a new key too; in an outage those that are known."""
    svid, new = world.root.issue(), world.root.issue()
    await show(world.board, svid)
    assert await world.ending(await world.signed(svid.private)) == PLANNER
    reads = world.board.reads
    strangers = [await world.signed(p256()) for _ in range(50)]
    for _ in range(20):
        assert {await world.ending(one) for one in strangers} == {Reason.UNKNOWN_KEY}
    assert world.board.reads - reads <= 2 + 20  # its own looks, every 0.05 s, are among them
    await show(world.board, new)
    world.clock.now += FRESH
    assert await world.ending(await world.signed(new.private)) == PLANNER
    world.board.down = True
    await until(lambda: "keys.presence_not_read" in world.warnings.events)
    world.clock.now += FRESH
    endings = [await world.ending(one) for one in (*strangers, await world.signed(svid.private))]
    assert set(endings[:-1]) == {"unavailable"}
    assert endings[-1] == PLANNER


class Accounts:
    """A reader of NATS users' messages, and the directory with what their accounts say."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, Clock(datetime.now(UTC).timestamp())
        self.account, self.user = nats_tokens.account(), nats_tokens.user()
        self.principal = f"nats://{self.account.public}/{self.user.public}"
        self.write("account", self.account.says("account", self.account))

    def write(self, name: str, token: str) -> None:
        """Write a token."""
        (self.directory / f"{name}.jwt").write_text(token)

    def reader(self) -> Watchword:
        """Return a reader."""
        kind = UserTokens(accounts=[self.account.public])
        return Watchword(realm="prod", keys=FileKeys([self.directory], check_every=0, kind=kind), clock=self.clock)

    async def signed(self, user: Holder, principal: str | None = None, place: int = 1) -> Message:
        """Return a message that a user signed."""
        return await signed(user.private, principal or self.principal, self.clock, place)


async def test_a_token_of_the_attackers_own_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A09: an account that nobody trusts, and one that claims another's user, make nobody speak as anyone.

    Did a reader trust any account, the first would speak under a name of its own choice.
    """
    world, mallory, stranger = Accounts(tmp_path), nats_tokens.user(), nats_tokens.account()
    world.write("user", world.account.says("user", world.user))
    world.write("mallory", stranger.says("user", mallory, issuer_account=world.account.public))
    name = f"nats://{world.account.public}/{mallory.public}"
    message = await world.signed(mallory, name)
    assert await ending(world.reader(), message) == Reason.UNKNOWN_KEY
    assert await ending(world.reader(), await world.signed(mallory)) == Reason.UNKNOWN_KEY
    assert await ending(world.reader(), await world.signed(world.user)) == world.principal
    with monkeypatch.context() as without:
        without.setattr("watchword_adapters.nkeys.chain._issuer", _Anybody)
        assert await ending(world.reader(), message) == name


class _Anybody:
    """An issuer whose every signature counts."""

    def __init__(self, token: object) -> None:
        self.token = token
        self.keys = self

    def __contains__(self, key: object) -> bool:
        return True


async def test_a_user_is_revoked_and_ends(tmp_path: Path) -> None:
    """A23: by its account, at the next look; and by its own token's end, judged when a message was appended."""
    world = Accounts(tmp_path)
    end = int(world.clock.now) + 60
    world.write("user", world.account.says("user", world.user, exp=end, iat=1000))
    reader = world.reader()
    before = await world.signed(world.user)
    assert await ending(reader, before) == world.principal
    world.clock.now = end + 1.0
    assert await ending(reader, await world.signed(world.user, place=2)) == Reason.KEY_NOT_VALID
    waiting = replace(before, position=Position("tasks", 3))
    world.write("account", world.account.says("account", world.account, revocations={"*": 1000}))
    await asyncio.sleep(0)
    assert await ending(reader, waiting) == Reason.KEY_REVOKED
