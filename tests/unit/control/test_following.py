"""A follower of the control log: what it believes, what it keeps, and what it continues with when it is cut off."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.unit.control.memory_log import CHANNEL, Entries, MemoryLog
from watchword import (
    ConfigurationError,
    MemoryKeys,
    Policy,
    Reason,
    Rejected,
    SigningError,
    SigningKey,
    Unavailable,
    VerificationKey,
    VerifiedMessage,
    Watchword,
)
from watchword.control import Control, Operator
from watchword.keys import thumbprint
from watchword.spi import Channel, KeyChain, Message
from watchword.statements import CONTENT_TYPE, MAX_RANK, Contain, GiveKey, Head, Release, Revoke, Statement, Verb
from watchword_adapters.control import desk as desks
from watchword_adapters.control import following as followings
from watchword_adapters.control.desk import desk, followed, until
from watchword_adapters.control.following import Following, Parts
from watchword_adapters.control.keys import ControlKeys
from watchword_adapters.control.log import End
from watchword_adapters.control.state import StateFile
from watchword_adapters.control.thread import FollowerThread

ONCALL, PLANNER, MALLORY = "agent://acme/oncall", "agent://acme/planner", "agent://acme/mallory"
OPERATORS = (Operator(ONCALL, frozenset(Verb), ("**",)),)
TASKS = Channel("nats", "prod", "tasks")


class Root:
    """The source of operators' own keys, which can be down."""

    def __init__(self, *keys: VerificationKey) -> None:
        self.keys = list(keys)
        self.down = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        await self.answers.wait()
        if self.down:
            raise ConnectionError
        return await MemoryKeys(self.keys).find(principal, key_id)


class World:
    """A log, an operator, an agent of his, and a stranger."""

    def __init__(self, path: Path) -> None:
        self.entries = Entries()
        self.signing = {name: SigningKey.generate() for name in (ONCALL, PLANNER, MALLORY)}
        self.root = Root(*(key.verification_key(name) for name, key in self.signing.items()))
        self.directory = path
        self.clock: Callable[[], float] = lambda: self.entries.now

    def agent(self, principal: str = PLANNER, **options: Any) -> Watchword:
        """Return an agent that signs."""
        options.setdefault("keys", KeyChain([self.root]))
        return Watchword(realm="prod", principal=principal, key=self.signing[principal], clock=self.clock, **options)

    def parts(self, **options: Any) -> Parts:
        """Return what follows the log."""
        control, agent = Control(OPERATORS), self.agent(ONCALL)
        made = Parts(
            realm="prod",
            control=control,
            operators=OPERATORS,
            root=self.root,
            open_log=lambda: MemoryLog(self.entries, agent),
            state=StateFile(self.directory, CHANNEL.uri),
            clock=self.clock,
            audit=agent.audit,
        )
        return replace(made, **options)

    async def say(self, *sayings: Any) -> Control:
        """Let the operator say something, and return what holds then."""
        async with desk(self.agent(ONCALL), self.parts(state=None)) as at:
            for saying in sayings:
                await at.say(saying)
        return at.control


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Give a world in which pauses are short."""
    monkeypatch.setattr(followings, "TICK", 0.01)
    monkeypatch.setattr(followings, "CHECK_EVERY", 0.02)
    monkeypatch.setattr(followings, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(followings, "WAIT_FOR_KEYS", 0.01)
    monkeypatch.setattr(desks, "TIMEOUT", 60.0)  # nothing ends by it but what never comes
    return World(tmp_path)


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[Following]:
    """Follow, known or not."""
    following = Following(parts)
    task = asyncio.create_task(following.run())
    try:
        yield following
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def contained(control: Control, principal: str = PLANNER) -> bool:
    """Return True if a principal is contained for good."""
    return control.containment(principal, lambda: 0.0) is not None


async def soon(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it happens in a follower, which tells nobody
            await asyncio.sleep(0.002)


async def test_what_an_operator_says_holds_everywhere(world: World) -> None:
    """Every follower has it, one that comes later as well."""
    async with followed(world.parts(state=None)) as early:
        await world.say(Contain(PLANNER), Head())
        await soon(lambda: contained(early.control))
        await world.say(Release(PLANNER), Head())
        await soon(lambda: not contained(early.control))
        await world.say(Contain(PLANNER))
    async with followed(world.parts(state=None)) as late:
        assert contained(late.control)
        assert late.control.last_head is not None


async def test_nothing_false_is_believed(world: World) -> None:
    """Promise (A52): unsigned, forged, copied, another agent's, of another content type, or dated far ahead."""
    statement = Statement(1, "", 1, Contain(PLANNER))

    async def signed(
        by: str, *, at: float = 0.0, kind: str = CONTENT_TYPE, value: bytes | None = None, **to: Any
    ) -> Message:
        world.entries.now += at
        message = Message(
            channel=CHANNEL, value=value or statement.to_json(), headers=(("content-type", kind.encode()),)
        )
        header = (await world.agent(by).signer.sign(message, **to)).header
        world.entries.now -= at
        return replace(message, headers=(*message.headers, header))

    honest = await signed(ONCALL, value=Statement(1, "", 1, Contain("agent://acme/other")).to_json())
    world.entries.append(replace(honest, headers=honest.headers[:1]))
    world.entries.append(replace(honest, value=statement.to_json()))
    world.entries.append(await signed(PLANNER))
    world.entries.append(await signed(ONCALL, kind="application/json"))
    world.entries.append(await signed(ONCALL, value=b"{}"))
    world.entries.append(await signed(ONCALL, at=3600))
    world.entries.append(await signed(ONCALL, recipient=PLANNER))
    world.entries.append(replace(await signed(ONCALL), value=None))
    audit = world.agent(ONCALL).audit
    async with followed(world.parts(state=None, audit=audit)) as following:
        assert following.control.held == 0
        world.entries.append(honest)
        world.entries.append(honest, at=world.entries.now + 86_400)
        await soon(lambda: following.control.held == 1)
    assert {reason: count for reason, count in audit.counts.items() if count} == {
        Reason.UNSIGNED: 1, Reason.ALTERED: 2, Reason.UNKNOWN_KEY: 1, Reason.FROM_FUTURE: 1, Reason.WRONG_RECIPIENT: 1,
    }  # fmt: skip
    assert audit.events["control.malformed"] == 2


async def test_a_restart_rolls_nothing_back(world: World) -> None:
    """Promise (A52): a broker that is away, or a log cut short or recreated, does not undo what was known."""
    await world.say(Contain(PLANNER), Revoke(thumbprint(world.signing[MALLORY].public), 5))
    async with followed(world.parts()) as following:
        assert contained(following.control)
    world.entries.down = True
    async with running(world.parts()) as following:
        await soon(lambda: following.is_known)
        assert contained(following.control)
    world.entries.down, world.entries.kept, world.entries.identity = False, [], "log 2"
    audit = world.agent(ONCALL).audit
    async with followed(world.parts(audit=audit)) as following:
        revoked = following.control.limited(world.signing[MALLORY].verification_key(MALLORY))
        assert (contained(following.control), revoked.revoked_at) == (True, 5)
        assert audit.events["control.log_shorter"] == 1
    async with followed(world.parts(state=None)) as following:
        assert not contained(following.control)


async def test_a_log_that_is_made_anew_meanwhile_is_read_from_its_beginning(world: World) -> None:
    """The same for one that is another one while it is read."""
    await world.say(Contain(PLANNER))
    async with followed(world.parts(state=None)) as following:
        world.entries.kept, world.entries.identity = [], "log 2"
        await world.say(Contain(MALLORY))
        await soon(lambda: contained(following.control, MALLORY))
        assert contained(following.control)
        await soon(lambda: world.entries.opened >= 4)


async def test_a_key_without_authority_takes_its_words_with_it(world: World) -> None:
    """Promise (A52): revoked where operators' keys come from; a mistake there is undone as it was made."""
    await world.say(Contain(PLANNER))
    async with followed(world.parts()) as following:
        oncall = world.root.keys[0]
        world.root.down = True
        await asyncio.sleep(0.05)
        assert contained(following.control), "a source that is down takes nothing away"
        world.root.down = False
        world.root.keys[0] = replace(oncall, revoked_at=int(world.entries.now))
        await soon(lambda: not contained(following.control))
        world.root.keys[0] = oncall
        await soon(lambda: contained(following.control))
        del world.root.keys[0]
        await soon(lambda: not contained(following.control))
    async with running(world.parts()) as following:
        await soon(lambda: following.is_known)
        assert not contained(following.control)


async def test_what_a_new_key_said_before_it_was_known_here_is_read_again(world: World) -> None:
    """Promise: an operator who rotates his key loses no word, though root files come later; over a restart as well."""
    new, old = SigningKey.generate(), world.signing[ONCALL]
    before = world.root.keys
    after = [*before, new.verification_key(ONCALL)]
    async with followed(world.parts()) as following:
        world.signing[ONCALL], world.root.keys = new, after
        agent = world.agent(ONCALL)
        world.root.keys = before
        statement = Statement(1, "", 7, Contain(PLANNER))
        await MemoryLog(world.entries, agent).publish(statement.to_json(), {"content-type": CONTENT_TYPE})
        world.signing[ONCALL] = old
        await world.say(Contain(MALLORY))
        await soon(lambda: contained(following.control, MALLORY))
        assert not contained(following.control)
    async with followed(world.parts()) as following:
        assert not contained(following.control)
        world.root.keys = after
        await soon(lambda: contained(following.control))
    audit = world.agent(ONCALL).audit
    async with followed(world.parts(audit=audit)) as following:
        assert contained(following.control)
        assert contained(following.control, MALLORY)
    assert audit.counts == {}


async def test_a_flood_in_an_operators_name_is_noted_within_bounds(world: World, monkeypatch: Any) -> None:
    """A stranger may invent keys."""
    monkeypatch.setattr(followings, "MOST_MISSING", 2)
    for _ in range(5):
        world.signing[ONCALL] = SigningKey.generate()
        value = Statement(1, "", 7, Contain(PLANNER)).to_json()
        await MemoryLog(world.entries, world.agent(ONCALL)).publish(value, {"content-type": CONTENT_TYPE})
    async with followed(world.parts(state=None)) as following:
        world.root.down = True
        assert len(following._missing) == 2
        await asyncio.sleep(0.05)
        world.root.down = False


async def test_what_was_kept_of_a_key_without_authority_lapses(world: World) -> None:
    """It was revoked while this process was away."""
    await world.say(Contain(PLANNER))
    async with followed(world.parts()):
        pass
    world.root.keys[0] = replace(world.root.keys[0], revoked_at=int(world.entries.now))
    world.entries.down, audit = True, world.agent(ONCALL).audit
    async with running(world.parts(audit=audit)) as following:
        await soon(lambda: following.is_known)
        assert not contained(following.control)
    assert audit.events["control.lapsed"] == 1


async def test_a_source_that_is_down_is_waited_for(world: World) -> None:
    """Nothing is skipped because nobody could say whose key it is."""
    await world.say(Contain(PLANNER))
    world.root.down = True
    async with running(world.parts(state=None)) as following:
        await soon(lambda: following.error is not None)
        assert not following.is_known
        world.root.down = False
        await soon(lambda: contained(following.control))


async def test_operators_who_change_are_judged_anew(world: World) -> None:
    """What one may say no more holds no more; what another may say now is found in the log."""
    await world.say(Contain(PLANNER))
    async with followed(world.parts()) as following:
        following.switch((Operator(ONCALL, frozenset({Verb.KEY}), ("**",)),))
        assert not contained(following.control)
        following.switch(OPERATORS)
        await soon(lambda: contained(following.control))


async def test_a_state_that_is_torn_or_foreign(world: World) -> None:
    """A line that a crash cut off is left out; a file that we did not write is refused."""
    await world.say(Contain(PLANNER), Contain(MALLORY))
    async with followed(world.parts()):
        pass
    state = world.parts().state
    assert state is not None
    whole = state.path.read_bytes()
    state.path.write_bytes(whole + b'{"statement":{"chan')
    known = state.load()
    assert (len(known.messages), known.place is not None, len(known.links)) == (2, True, 1)
    state.path.write_bytes(whole + b"{\n[]\n")
    assert len(state.load().messages) == 2
    state.path.write_bytes(b"something else\n")
    async with running(world.parts()) as following:
        await soon(lambda: following.error is not None)
        with pytest.raises(ConfigurationError, match="move it away"):
            raise following.error or AssertionError
        assert state.path.read_bytes() == b"something else\n"
        state.path.unlink()
        await soon(lambda: contained(following.control) and state.path.exists())
    state.path.unlink()
    state.path.mkdir()
    with pytest.raises(ConfigurationError, match="directory"):
        state.load()


async def test_a_state_that_cannot_be_written_is_told(world: World) -> None:
    """What was heard holds all the same."""
    audit, parts = world.agent(ONCALL).audit, world.parts()
    async with followed(replace(parts, audit=audit)) as following:
        assert parts.state is not None
        parts.state.path.unlink(missing_ok=True)
        parts.state.path.mkdir()
        await world.say(Contain(PLANNER))
        await soon(lambda: contained(following.control) and audit.events["control.state_unwritten"])


async def test_a_state_is_written_anew_once_most_of_it_decides_nothing(world: World, monkeypatch: Any) -> None:
    """It does not grow forever."""
    monkeypatch.setattr("watchword_adapters.control.state.SPARE_LINES", 5)
    parts = world.parts()
    async with followed(parts):
        for number in range(4):
            await world.say(*(Contain(PLANNER, int(world.entries.now) + number + 10), Release(PLANNER)))
            await asyncio.sleep(0.02)
    assert parts.state is not None
    assert len(parts.state.load().messages) < 8


async def test_whoever_is_cut_off_for_too_long_judges_nothing(world: World) -> None:
    """By the age of the last head where one is expected, else since the log's end was read."""
    agent = world.agent()
    bot = Operator(ONCALL, frozenset({Verb.HEAD}), ("**",))
    parts = world.parts(state=None, max_staleness=60.0)
    agent.verifier.obey(parts.control)
    message = Message(channel=TASKS, value=b"x", headers=())
    message = replace(message, headers=((await agent.signer.sign(message)).header,))
    async with followed(parts) as following:
        await soon(lambda: not parts.control.stale)
        assert isinstance(await agent.verifier.verify(message), VerifiedMessage)
        world.entries.down = True
        world.entries.now += 61
        await soon(lambda: parts.control.stale)
        with pytest.raises(Unavailable, match="max_staleness"):
            await agent.verifier.verify(message)
        world.entries.down = False
        await soon(lambda: not parts.control.stale)
        following.switch((bot,))
        await soon(lambda: parts.control.stale)
        await world.say(Head())
        await soon(lambda: not parts.control.stale)
        # An old head once more, by an attacker who captured it, or the first that a broker lets through.
        world.entries.now += 61
        await soon(lambda: parts.control.stale)
        head = world.entries.kept[-1]
        assert head is not None
        world.entries.append(head)
        await soon(lambda: following.place is not None and following.place.position == len(world.entries.kept))
        await asyncio.sleep(0.05)
        assert parts.control.stale


async def test_a_source_that_hangs_hides_from_nobody_that_the_log_is_away(world: World) -> None:
    """Promise: what is asked meanwhile, and does not answer, does not stop the clock."""
    await world.say(Contain(PLANNER))
    parts = world.parts(state=None, max_staleness=60.0)
    async with followed(parts):
        await soon(lambda: not parts.control.stale)
        world.root.answers.clear()
        await asyncio.sleep(0.05)
        world.entries.down = True
        world.entries.now += 61
        await soon(lambda: parts.control.stale)
        world.root.answers.set()


async def test_an_operator_who_is_not_heard_is_told(world: World) -> None:
    """Who is no operator here, has no key here, or speaks to a log that does not answer."""
    agent = world.agent(MALLORY)
    async with desk(agent, world.parts(state=None, open_log=lambda: MemoryLog(world.entries, agent))) as at:
        with pytest.raises(ConfigurationError, match="may not state that: not an operator"):
            await at.say(Contain(PLANNER))
    assert not world.entries.kept
    async with desk(
        world.agent(ONCALL), world.parts(state=None, open_log=lambda: MemoryLog(world.entries, agent))
    ) as at:
        with pytest.raises(ConfigurationError, match="does not count"):
            await at.say(Contain(PLANNER))
    world.root.keys = world.root.keys[:1]
    with pytest.raises(ConfigurationError, match=r"in none of \[\[keys\]\]"):
        async with desk(agent, world.parts(state=None)):
            pass
    async with desk(world.agent(ONCALL), world.parts(state=None)) as at:
        world.entries.down = True
        await soon(lambda: at._following.log is None)
        with pytest.raises(Unavailable, match="not connected"):
            await at.say(Head())


async def test_what_is_said_on_a_log_that_was_made_anew_is_obeyed(world: World) -> None:
    """Promise (A52): a process that still knows what the lost log held comes after that, not before it."""
    for _ in range(3):
        await world.say(Contain(PLANNER), Release(PLANNER))
    async with followed(world.parts()) as following:
        assert not contained(following.control)
        world.entries.kept, world.entries.identity = [], "log 2"
        world.entries.now += 60
        await world.say(Contain(PLANNER))
        await soon(lambda: contained(following.control))
        world.entries.kept, world.entries.identity = [], "log 3"
        world.entries.now += 60
        await world.say(Release(PLANNER))
        await soon(lambda: not contained(following.control))


async def test_what_cannot_hold_is_not_said_to_hold(world: World) -> None:
    """An operator who has outranked everybody is named as what it is, and nothing malformed is said meanwhile."""
    await world.say(Head())
    agent = world.agent(ONCALL)

    async def says(rank: int, saying: Any) -> None:
        number, digest, _ = at.control.link(at.by)
        statement = Statement(number + 1, digest, rank, saying)
        await MemoryLog(world.entries, agent).publish(statement.to_json(), {"content-type": CONTENT_TYPE})
        await soon(lambda: at.control.link(at.by).number > number)

    async with desk(agent, world.parts(state=None)) as at:
        await says(MAX_RANK, Contain(PLANNER))
        with pytest.raises(ConfigurationError, match="outranks it"):
            await at.say(Release(PLANNER))
        with pytest.raises(ConfigurationError, match="it has already ended"):
            await at.say(Contain(MALLORY, int(world.entries.now)))
        await at.say(Contain(PLANNER))
        await at.say(Revoke(thumbprint(world.signing[MALLORY].public), 5))
        await at.say(Revoke(thumbprint(world.signing[MALLORY].public), 9))
    world.clock = lambda: world.entries.now + 25
    with pytest.raises(ConfigurationError, match="does not count: from_future"):
        await world.say(Contain(PLANNER))


async def test_what_became_of_old_entries_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log takes no memory for that."""
    monkeypatch.setattr(desks, "MOST_OUTCOMES", 2)
    await world.say(*(Head() for _ in range(5)))
    async with desk(world.agent(ONCALL), world.parts(state=None)) as at:
        assert len(at._fates) == 2
        at._fates = {}
        with pytest.raises(ConfigurationError, match="not read back"):
            await at.say(Head())


async def test_a_log_that_is_unfit_or_away_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where someone has to mend it, after a time-out where it may come back."""
    monkeypatch.setattr(desks, "TIMEOUT", 0.05)
    world.entries.unfit = "stream WATCHWORD: max_age: write 0"
    with pytest.raises(ConfigurationError, match="max_age"):
        async with followed(world.parts(state=None)):
            pass
    world.entries.down = True
    with pytest.raises(Unavailable, match="the broker is down"):
        async with followed(world.parts(state=None)):
            pass
    with pytest.raises(Unavailable, match="within"):
        await until(lambda: False, Following(world.parts(state=None)))


async def test_an_agent_obeys_from_its_first_start_on(world: World) -> None:
    """Promise: nothing is judged before all is known that the log held; then within moments."""
    key = SigningKey.generate()
    await world.say(Contain(MALLORY, why="INC-7"), GiveKey(key.verification_key("agent://acme/new")))
    parts = world.parts(clock=time.time)
    world.entries.now = time.time()
    planner = world.agent(
        PLANNER, policy=Policy(), keys=KeyChain([world.root, ControlKeys(parts.control, [world.root])])
    )
    thread = FollowerThread(planner, parts)

    async def verdict(by: str, signer: SigningKey | None = None) -> Any:
        message = Message(channel=TASKS, value=b"x", headers=())
        world.signing.setdefault(by, signer or SigningKey.generate())
        header = (await world.agent(by).signer.sign(message)).header
        try:
            return (await planner.verifier.verify(replace(message, headers=(header,)))).principal
        except Rejected as rejected:
            return rejected.reason

    await planner.verifier.start()
    thread.begin()
    changes = planner.verifier.changes
    assert await verdict(MALLORY) is Reason.CONTAINED
    assert await verdict("agent://acme/new", key) == "agent://acme/new"
    assert await verdict(ONCALL) == ONCALL
    await world.say(Release(MALLORY), Contain(ONCALL), Revoke(thumbprint(key.public), 5), Contain(PLANNER, why="INC-8"))
    await soon(lambda: parts.control.containment(PLANNER, time.time))
    assert planner.verifier.changes > changes
    assert await verdict(MALLORY) == MALLORY
    assert await verdict(ONCALL) is Reason.CONTAINED, "his ordinary messages"
    assert await verdict("agent://acme/new") is Reason.KEY_REVOKED

    def is_held() -> bool:
        try:
            planner.signer.prepare(Message(channel=TASKS, value=b"x", headers=()))
        except SigningError as error:
            return "INC-8" in str(error)
        return False

    await soon(is_held)
    thread.switch(())
    await soon(lambda: not is_held())
    assert await verdict(ONCALL) == ONCALL


async def test_an_agent_does_not_start_without_its_operators(world: World) -> None:
    """A log that is unfit ends the start with what to mend, one that is away after a time-out."""
    world.entries.unfit = "stream WATCHWORD: max_age: write 0"
    reader = Watchword(realm="prod", keys=world.root)
    FollowerThread(reader, world.parts(state=None))
    with pytest.raises(ConfigurationError, match="max_age"):
        await reader.verifier.start()
    world.entries.down = True
    thread = FollowerThread(reader, world.parts(state=None), timeout=0.05)
    thread.switch(())
    with pytest.raises(Unavailable, match="nothing was read of the control log"):
        await reader.verifier.start()
    world.entries.down, world.entries.unfit = False, None
    FollowerThread(reader, world.parts(state=None))
    await reader.verifier.start()


async def test_a_public_key_of_somebody_else_is_not_given(world: World) -> None:
    """Against the log the other source stands; between sources that cannot list nobody can tell."""
    control = Control(OPERATORS)
    key = world.signing[MALLORY]
    taken, free = key.verification_key(PLANNER), SigningKey.generate().verification_key(PLANNER)
    async with followed(world.parts(state=None, control=control)):
        await world.say(GiveKey(taken), GiveKey(free))
        await soon(lambda: len(control.keys) == 2)
    keys = ControlKeys(control, [MemoryKeys([key.verification_key(MALLORY)])])
    assert await keys.find(PLANNER, key.key_id) is None
    assert await keys.find(PLANNER, free.key_id) == free
    assert await keys.find(MALLORY, free.key_id) == free
    assert await keys.find(PLANNER, b"unknown") is None
    assert set(keys.keys) == {taken, free}


class SlowLog(MemoryLog):
    """A log that says how far it goes once who waits for that has looked many times."""

    async def end(self) -> End:
        """See the base."""
        for _ in range(50):
            await asyncio.sleep(0)
        return await super().end()


async def test_an_operator_speaks_behind_all_that_was_said_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (A52): with a state of its own it first reads what its key said elsewhere: nothing forks."""
    monkeypatch.setattr(desks, "LOOK_EVERY", 0)  # so a desk looks whenever the log takes a turn
    agent = world.agent(ONCALL)
    slow: dict[str, Any] = {"open_log": lambda: SlowLog(world.entries, agent), "audit": agent.audit}
    async with desk(agent, world.parts(**slow)) as at:
        await at.say(Contain(PLANNER))
    await world.say(Release(PLANNER), Contain(PLANNER), Contain(MALLORY))
    async with desk(agent, world.parts(**slow)) as at:
        await at.say(Release(PLANNER))
        assert not contained(at.control)
        assert contained(at.control, MALLORY)
        assert not at.control.notices
    assert not agent.audit.events


async def test_an_old_head_counts_from_when_it_was_signed(world: World) -> None:
    """Promise (A52): for a process that begins with a log that holds only a captured head, that is no sign of life."""
    await world.say(Head())
    head = world.entries.kept.pop()
    assert head is not None
    world.entries.now += 61
    world.entries.append(head)
    bot = Operator(ONCALL, frozenset({Verb.HEAD}), ("**",))
    parts = world.parts(state=None, max_staleness=50.0, operators=(bot,), control=Control((bot,)))
    async with followed(parts):
        await soon(lambda: parts.control.last_head is not None)
        assert (parts.control.last_head or 0.0) < world.entries.now - 50
        await soon(lambda: parts.control.stale)
