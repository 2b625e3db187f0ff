import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from spiffe._proto import workload_pb2

from tests.support.board import Board
from tests.support.patience import PATIENCE
from tests.support.workload_api import Authority, Svid, WorkloadApi, p256
from tests.unit.spiffe.world import CLOUD, PLANNER, Warnings, key_id, until
from watchword import ConfigurationError, MemoryKeys, Policy, SigningError, SigningKey, Unavailable, Watchword
from watchword.presence import SVID_CONTENT_TYPE
from watchword.spi import Channel, Message
from watchword.verifier import Authentic
from watchword_adapters.agent_context import AgentContext
from watchword_adapters.spiffe import signer as module
from watchword_adapters.spiffe import workload as workload_module
from watchword_adapters.spiffe.announcing import chain_of, to_value
from watchword_adapters.spiffe.certificates import verified_key
from watchword_adapters.spiffe.signer import SvidSigner, from_options
from watchword_adapters.spiffe.workload import Workload

MESSAGE = Message(channel=Channel.parse("nats://prod/tasks"), value=b"{}")


class World:
    """A Workload API, a board, and agents that sign by their SVIDs."""

    def __init__(self, root: Authority, serve: Callable[..., WorkloadApi]) -> None:
        self.root, self.board, self.warnings = root, Board(), Warnings()
        self._serve = serve
        self._api: WorkloadApi | None = None
        self.made: list[SvidSigner] = []

    @property
    def api(self) -> WorkloadApi:
        """The Workload API."""
        assert self._api is not None
        return self._api

    def signer(self, *svids: Svid, timeout: float = 10.0, **options: Any) -> SvidSigner:
        """Return a signer that has these SVIDs; it is not waited for until readers can know it."""
        if self._api is None:
            self._api = self._serve(*svids)
        chosen: dict[str, Any] = {"principal": PLANNER, "clock": self.board.clock} | options
        workload = Workload(self.api.socket, warn=self.warnings)
        try:
            made = SvidSigner(
                realm="prod",
                workload=workload,
                open_presence=self.board.open,
                policy=Policy(),
                warn=self.warnings,
                timeout=timeout,
                **chosen,
            )
        except ConfigurationError:
            workload.close()
            raise
        self.made.append(made)
        return made

    def agent(self, signer: SvidSigner, principal: str = PLANNER) -> Watchword:
        """Return an agent that signs by it."""
        return Watchword(realm="prod", principal=principal, key=signer, clock=self.board.clock)


@pytest.fixture
async def world(
    root: Authority, serve: Callable[..., WorkloadApi], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Give a world in which nobody waits for long, and see that its threads end."""
    monkeypatch.setattr(module, "SETTLE", 0.05)
    before = {*threading.enumerate()}
    made = World(root, serve)
    yield made
    for signer in made.made:
        signer.close()
    await until(
        lambda: not [one for one in threading.enumerate() if one.name == "watchword-svid" and one not in before]
    )


async def key_of(agent: Watchword) -> bytes:
    """Return the id of the key by which an agent signs now, as a reader finds it."""
    signed = await agent.signer.sign(MESSAGE)
    assert signed.id
    return agent.signer.key_id


async def until_signs(agent: Watchword, *, signs: bool) -> None:
    """Wait until an agent signs, or does so no more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await agent.signer.sign(MESSAGE)
            except SigningError:
                if not signs:
                    return
            else:
                if signs:
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("private", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()])
async def test_an_agent_signs_by_its_svid_once_that_was_announced(world: World, private: Any) -> None:
    """Its certificate is on the channel, signed by its own key, before its first message is; then it signs at once."""
    svid = world.root.issue(private=private)
    signer = world.signer(world.root.issue("/other"), svid)
    agent = world.agent(signer)
    assert await key_of(agent) == key_id(svid) == signer.key_id
    assert signer.wait(10.0)
    await until(lambda: agent.signer.in_memory)
    (shown,) = world.board.messages
    assert chain_of(shown.value or b"") == svid.der
    assert ("content-type", SVID_CONTENT_TYPE.encode()) in shown.headers
    assert agent.signing_as == (PLANNER, key_id(svid))
    assert signer.algorithm is SigningKey(private).algorithm
    reader = Watchword(
        realm="prod", keys=MemoryKeys([SigningKey(private).verification_key(PLANNER)]), clock=world.board.clock
    )
    (verdict,) = await reader.verifier.authenticate([shown])
    assert getattr(verdict, "issued_at", None), verdict


async def test_a_message_waits_until_its_key_can_be_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not forever: then it is Unavailable, and once the channel is there it is signed."""
    monkeypatch.setattr(module, "SIGN_LIMIT", 0.05)
    world.board.down = True
    signer = world.signer(world.root.issue())
    agent = world.agent(signer)
    assert not signer.wait(0.01)
    with pytest.raises(Unavailable, match="signing"):
        await agent.signer.sign(MESSAGE)
    with pytest.raises(Unavailable, match="this agent's certificate could not be announced yet"):
        await signer.sign(b"x")
    assert world.warnings.events == ["signer.svid_not_announced"]
    world.board.down = False
    await until(lambda: agent.signer.in_memory)
    assert await key_of(agent) == signer.key_id
    assert len(await signer.sign(b"x")) == 64


async def test_the_next_svid_takes_the_place_of_the_last(world: World) -> None:
    """Only once it was announced and read back; until then the one before signs, and each is in all signers."""
    first, second = world.root.issue(), world.root.issue()
    signer = world.signer(first)
    agent, other = world.agent(signer), world.agent(signer)
    assert await key_of(agent) == key_id(first)
    await until(lambda: agent.signer.in_memory)
    world.board.lose = True
    world.api.update([second], [world.root])
    await until(lambda: signer._latest.key_id == key_id(second))
    for _ in range(3):
        assert await key_of(agent) == key_id(first)
    world.board.lose = False
    await until(lambda: agent.signer.key_id == key_id(second))
    assert await key_of(agent) == await key_of(other) == key_id(second)
    shown = [chain_of(message.value or b"") for message in world.board.messages]
    assert shown == [first.der, second.der]


@pytest.mark.parametrize("first", [True, False])
async def test_a_certificate_is_announced_only_once_it_is_valid(world: World, first: bool) -> None:  # noqa: FBT001 - a parameter
    """Readers would pass the announcement over and forget it; until then the key before it signs, if there is one."""
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
    before, coming = world.root.issue(), world.root.issue(begin=begin)
    really, ahead = world.board.clock, [0.0]
    world.board.clock = lambda: really() + ahead[0]
    signer = world.signer(coming if first else before)
    agent = world.agent(signer)
    if not first:
        assert await key_of(agent) == key_id(before)
        world.api.update([coming], [world.root])
    await until(lambda: world.warnings)
    assert world.warnings[0][1]["detail"].startswith("it begins in ")
    if not first:
        assert await key_of(agent) == key_id(before)
    ahead[0] = 61.0
    await until(lambda: signer.key_id == key_id(coming) and agent.signer.in_memory)
    shown = [message for message in world.board.messages if chain_of(message.value or b"") == coming.der]
    assert all((message.appended_at or 0) >= begin.timestamp() for message in shown)
    key = verified_key(coming.der, {"acme.example": [world.root.certificate]}, now=really() + 61.0)
    reader = Watchword(realm="prod", keys=MemoryKeys([key]), clock=world.board.clock)
    (verdict,) = await reader.verifier.authenticate(shown[:1])
    assert isinstance(verdict, Authentic)


async def test_two_that_come_one_after_the_other_leave_the_last(world: World) -> None:
    """One that was never announced is passed over; what waited for it alone is Unavailable."""
    first, second, third = (world.root.issue() for _ in range(3))
    world.board.lose = True
    signer = world.signer(first)
    agent = world.agent(signer)
    waits = asyncio.ensure_future(agent.signer.sign(MESSAGE))
    await asyncio.sleep(0)
    world.api.update([second], [world.root])
    with pytest.raises(Unavailable):
        await waits
    await until(lambda: agent.signer.key_id == key_id(second))
    world.board.lose = False
    await until(lambda: agent.signer.in_memory)
    world.board.lose = True
    world.api.update([first], [world.root])
    await until(lambda: signer._latest.key_id == key_id(first))
    world.api.update([third], [world.root])
    await until(lambda: signer._latest.key_id == key_id(third))
    assert await key_of(agent) == key_id(second)
    world.board.lose = False
    await until(lambda: agent.signer.key_id == key_id(third))


async def test_a_copy_that_others_put_there_is_no_announcement(world: World) -> None:
    """The agent waits for its own message, which its own key has signed."""
    svid = world.root.issue()
    world.board.lose = True
    signer = world.signer(svid)
    reads = world.board.reads
    await until(lambda: world.board.reads > reads)
    headers = (("content-type", SVID_CONTENT_TYPE.encode()),)
    world.board.put(to_value(svid.der), headers)
    reads = world.board.reads
    await until(lambda: world.board.reads > reads + 2)
    assert not signer.wait(0.01)
    world.board.lose = False


async def test_what_is_not_stored_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that is full, or that stores nothing at all."""
    monkeypatch.setattr(module, "STORED_WITHIN", 0.05)
    world.board.lose = True
    signer = world.signer(world.root.issue())
    await until(lambda: world.warnings)
    assert "was not read back in 0.05 s: is the channel full, or" in world.warnings[0][1]["detail"]
    world.board.keeps = False
    await until(lambda: len(world.warnings) > 1)
    assert "'watchword control init' sets that up" in world.warnings[1][1]["detail"]
    assert not signer.wait(0.01)


async def test_the_certificate_is_shown_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a process that starts later need not read far back."""
    monkeypatch.setattr(module, "EVERY", 0.02)
    signer = world.signer(world.root.issue())
    await until(lambda: len(world.board.messages) > 3)
    assert len({message.value for message in world.board.messages}) == 1
    assert signer.wait(1.0)


async def test_a_key_that_has_ended_signs_nothing(world: World) -> None:
    """Readers would reject it; another SVID lets the agent sign again."""
    svid, moved, really = world.root.issue(life=timedelta(hours=1)), [0.0], world.board.clock

    def clock() -> float:
        return really() + moved[0]

    signer = world.signer(svid, clock=clock)
    agent = world.agent(signer)
    assert await key_of(agent)
    end = svid.chain[0].not_valid_after_utc.timestamp()
    moved[0] = end - really() - 7.0 - 5.0
    await asyncio.sleep(0.3)
    assert await key_of(agent)
    moved[0] += 5.0
    await until_signs(agent, signs=False)
    with pytest.raises(SigningError, match="this agent's SVID has ended, and no newer one could be announced"):
        await agent.signer.sign(MESSAGE)
    late = world.agent(signer)
    with pytest.raises(SigningError, match="has ended"):
        await late.signer.sign(MESSAGE)
    world.board.clock = clock
    ended = world.signer(svid, clock=clock)  # as a start with it: nothing is announced that readers pass over
    assert not ended.wait(0.5)
    assert len(world.board.messages) == 1
    assert "signer.svid_not_announced" not in world.warnings.events
    begin = datetime.fromtimestamp(end, UTC) - timedelta(minutes=30)
    world.api.update([world.root.issue(begin=begin)], [world.root])
    await until_signs(agent, signs=True)
    assert await key_of(agent) != key_id(svid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forking is what it is about
async def test_a_forked_child_signs_nothing(world: World) -> None:
    """In it nothing would change to the next key; the parent continues."""
    signer = world.signer(world.root.issue())
    agent = world.agent(signer)
    assert await key_of(agent)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            agent.signer.prepare(MESSAGE)
        except SigningError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        assert told.read() == b"forked after its SVID was asked for: load the agent in the child"
    await asyncio.to_thread(os.waitpid, child, 0)
    assert await key_of(agent)


REFUSED: list[tuple[Callable[[Authority], Svid], str]] = [
    (lambda root: root.issue(private=rsa.generate_private_key(65537, 2048)), "kind RSA-2048: only P-256 and Ed25519"),
    (lambda root: root.issue(private=ec.generate_private_key(ec.SECP384R1())), "kind secp384r1"),
    (lambda root: root.issue("/cloud"), f"no SVID of '{PLANNER}': the Workload API gives {CLOUD}"),
    (lambda _: Authority(name="other").issue(), "trust domain 'acme.example' does not vouch for its certificate"),
    (lambda root: Svid(root.issue().chain, p256()), "the SVID's private key is not that of its certificate"),
    (lambda root: root.issue(uris=["spiffe://Acme.Example/planner"]), "is not a SPIFFE ID"),
]


@pytest.mark.parametrize(("made", "complaint"), REFUSED)
async def test_an_svid_that_nobody_could_take_is_told_at_the_start(
    world: World, made: Callable[[Authority], Svid], complaint: str
) -> None:
    """By what is wrong with it, and what to write in the agent of SPIRE."""
    with pytest.raises(ConfigurationError) as error:
        world.signer(made(world.root))
    assert complaint in str(error.value)


@pytest.mark.parametrize("made", [case[0] for case in REFUSED])
async def test_an_svid_that_nobody_could_take_replaces_nothing(world: World, made: Callable[[Authority], Svid]) -> None:
    """An agent that is given such an SVID continues to sign with the one before, and a warning is logged."""
    svid = world.root.issue()
    signer = world.signer(svid)
    agent = world.agent(signer)
    assert await key_of(agent)
    world.api.update([made(world.root)], [world.root])
    await until(lambda: "signer.svid_not_announced" in world.warnings.events)
    assert await key_of(agent) == key_id(svid)


async def test_the_workload_api_may_go_and_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """During an outage the agent signs with the SVID it has, and warnings do not repeat; then it gets the next one."""
    monkeypatch.setattr(workload_module, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(workload_module, "LONGEST_PAUSE", 0.05)
    svid, second = world.root.issue(), world.root.issue()
    signer = world.signer(svid)
    agent = world.agent(signer)
    assert await key_of(agent) == key_id(svid)
    workload = signer._workload
    assert workload.broken_for == 0.0
    world.api.hang_up(grpc.StatusCode.UNAVAILABLE)
    await until(lambda: "spiffe.workload_api_lost" in world.warnings.events)
    await until(lambda: workload.broken_for == 0.0)
    world.api.denied = True
    world.api.hang_up()
    await until(lambda: "PERMISSION_DENIED" in str(world.warnings))
    assert workload.broken_for > 0.0
    assert await key_of(agent) == key_id(svid)
    told = len(world.warnings)
    await asyncio.sleep(0.2)
    assert len(world.warnings) == told
    world.api.denied = False
    world.api.update([second], [world.root])
    await until(lambda: agent.signer.key_id == key_id(second))


async def test_an_answer_that_cannot_be_read_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes nothing; the next good one counts."""
    monkeypatch.setattr(workload_module, "SHORTEST_PAUSE", 0.05)
    svid, second = world.root.issue(), world.root.issue()
    signer = world.signer(svid)
    agent = world.agent(signer)
    assert await key_of(agent) == key_id(svid)
    for wrong in (workload_pb2.X509SVIDResponse(), workload_pb2.X509SVIDResponse(svids=[workload_pb2.X509SVID()])):
        told = len(world.warnings)
        world.api.send(wrong)
        await until(lambda told=told: len(world.warnings) > told)  # type: ignore[misc]
        assert await key_of(agent) == key_id(svid)
    world.api.update([second], [world.root])
    await until(lambda: agent.signer.key_id == key_id(second))


async def test_without_an_answer_nothing_starts(world: World) -> None:
    """A workload that is not registered gets an error within the timeout."""
    svid = world.root.issue()
    world.signer(svid).close()
    world.api.denied = True
    with pytest.raises(
        ConfigurationError, match=r"PERMISSION_DENIED, for 1 s: is the agent running, and this workload"
    ):
        world.signer(timeout=1.0)


def test_who_asks_in_a_fork_is_told(
    root: Authority, serve: Callable[..., WorkloadApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gRPC has open cannot be used by a child."""
    api = serve(root.issue())
    workload = Workload(api.socket, warn=Warnings())
    with pytest.raises(Unavailable, match="forked after"):
        _ = workload.given
    try:
        assert workload.wait().svids
        child = os.getpid() + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: child)
            with pytest.raises(Unavailable, match="load the agent in the child"):
                _ = workload.given
    finally:
        workload.close()


def settings(directory: Path, board: Board, principal: str | None = PLANNER) -> AgentContext:
    """Return what the settings say besides."""
    return AgentContext(
        realm="prod",
        directory=directory,
        clock=time.time,
        policy=Policy(),
        warn=Warnings(),
        principal=principal,
        presence=board.open,
    )


@pytest.mark.parametrize("principal", [None, "agent://acme/planner", "spiffe://acme.example"])
def test_the_principal_is_the_spiffe_id(tmp_path: Path, principal: str | None) -> None:
    """A principal that is no SPIFFE ID raises an error that says what to write, before the Workload API is asked."""
    with pytest.raises(ConfigurationError, match='write principal = "spiffe://<trust domain>/<path>"'):
        from_options({}, settings(tmp_path, Board(), principal))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"timeout": 0}, "timeout of 0 s: write 1 s to 300 s"), ({"key": "x"}, "key"), ({"socket": "unix:"}, "socket")],
)
def test_a_mistake_in_the_table_is_told(tmp_path: Path, options: dict[str, Any], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match=complaint):
        from_options(options, settings(tmp_path, Board()))


def test_a_start_waits_until_readers_can_know_the_key(
    tmp_path: Path, root: Authority, serve: Callable[..., WorkloadApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an agent that is loaded can sign; but one whose channel is away is loaded, too."""
    monkeypatch.setattr(module, "SETTLE", 0.05)
    board = Board()
    api = serve(root.issue())
    signer = from_options({"socket": api.socket}, settings(tmp_path, board))
    assert signer.wait(0)
    signer.close()
    board.down = True
    signer = from_options({"socket": api.socket, "timeout": 1}, settings(tmp_path, board))
    assert not signer.wait(0)
    signer.close()
