"""A realm in which a page of the documentation is typed: readers, an honest agent, and what became of each command."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from benchmarks.trust.world import CONTROLLER, PATIENCE, Member, World, flows
from tests.support.pages import Shown, shown_on
from tests.support.typist import Ended, Typist

RATE = 10.0
"""Messages a second of each agent."""

AGAIN = 20.0
"""Seconds for which a command is typed again."""

_ENOUGH = 3
"""Messages that a reader must have refused since a command for it to have heard of it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of a page, as the page has it, and what holds before and after it.

    It ends with ``code``, or where that is None with 1 if it names something that was rejected and with 0 if not, does
    not print ``never``, and is typed ``again`` until it prints what the page shows. ``folder`` is where it is typed,
    ``answer`` what is answered at a terminal, ``learns`` what the page calls the id of the key that is made.
    """

    text: str
    code: int | None = 0
    before: Callable[[], Awaitable[None]] | None = None
    after: Callable[[], Awaitable[None]] | None = None
    again: bool = False
    never: str | None = None
    learns: str | None = None
    folder: str = "."
    answer: str | None = None


class Realm(World):
    """A world whose operators type at one desk, the first of them without ``--config``."""

    def __init__(self, directory: Path, bus: str, address: str, name: str, typist: Typist) -> None:
        super().__init__(directory, bus, address, name)
        self._typist = typist
        self.reading: list[Member] = []

    @classmethod
    @asynccontextmanager
    async def at_work(cls, directory: Path, bus: str, address: str, name: str, policy: str = "") -> AsyncIterator[Self]:
        """Make it, with three readers and a controller that sends; ``policy`` is TOML for readers."""
        async with Typist.at_work(directory) as typist:
            realm = cls(directory, bus, address, name, typist)
            realm.policy = policy
            async with realm.made():
                (directory / "watchword.toml").symlink_to("oncall.toml")
                await realm.give("controller")
                realm.reading, _ = await asyncio.gather(
                    realm.readers(), realm.member("agent", "controller", realm.tasks, RATE)
                )
                await realm.come(CONTROLLER)
                yield realm

    async def types(self, *command: str, by: str = "oncall", code: int = 0) -> str:
        """Type a command as an operator, and return what it prints."""
        told = await self._typist.type(*command, "-c", f"{by}.toml", cwd=self.directory)
        assert told.code == code, (command, told)
        return told.out

    async def joins(self, key_set: str, public: str) -> None:
        """Put a public key into a set in a file."""
        told = await self._typist.type("jwks", key_set, public, "-o", key_set, cwd=self.directory)
        assert told.code == 0, told

    async def stop_sending(self, name: str) -> None:
        """End a process."""
        for member in self._members:
            if member.name == name:
                await member.end()

    async def follow(self, page: str, steps: list[Step], names: dict[str, str]) -> None:
        """Type a page from top to bottom; it must have these commands, and no other."""
        shown = shown_on(page)
        assert [one.text for one in shown] == [step.text for step in steps]
        for one, step in zip(shown, steps, strict=True):
            if step.before is not None:
                await step.before()
            await self._type(one, step, names)
            if step.after is not None:
                await step.after()

    async def _type(self, shown: Shown, step: Step, names: dict[str, str]) -> None:
        end = time.monotonic() + AGAIN
        while True:
            told = await self._run(shown.words(names), step)
            printed = told.err + told.out
            if step.learns is not None and (made := re.match(r"key (\S+) of ", told.out)):
                names[step.learns] = made[1]
            code = int('"rejected"' in told.out) if step.code is None else step.code
            right = told.code == code and shown.prints(printed, names)
            right = right and (step.never is None or step.never not in printed)
            if right or not step.again or time.monotonic() > end:
                break
        assert right, f"{shown.place}\nexit code {told.code}, not {step.code}; printed:\n{printed}"

    async def _run(self, words: list[str], step: Step) -> Ended:
        program, *rest = words
        folder = self.directory / step.folder
        if program == "watchword":
            return await self._typist.type(*rest, cwd=folder, answer=step.answer)
        assert program == "mv", f"the pages need no {program}"
        source, target = rest
        (folder / source).replace(folder / target)
        return Ended(0, "", "")

    async def come(self, who: str, key: str | None = None) -> None:
        """Wait until messages of a principal come to all readers, by one key if it is named."""
        if key is None:
            await flows(self.reading, who)
        since = time.time()
        for reader in self.reading:
            await reader.until(lambda reader=reader: reader.delivered(who, since, key=key))  # type: ignore[misc]

    async def stop(self, who: str, reason: str, *, key: str | None = None, within: float = 1.0) -> None:
        """Wait until all readers refuse a principal's messages, and see that none came later than ``within`` seconds.

        How long the machine let a reader stand still shows in the controller's messages, and is not counted.
        """
        since = time.time()
        before = [(await reader.counts()).get(reason, 0) for reader in self.reading]
        for reader, refused in zip(self.reading, before, strict=True):
            end = time.monotonic() + PATIENCE
            while (await reader.counts()).get(reason, 0) < refused + _ENOUGH:
                assert time.monotonic() < end, f"{reader.name} refuses nothing as {reason}: {await reader.counts()}"
                await asyncio.sleep(0.05)
            honest = [since - 1.0, *reader.delivered(CONTROLLER, since - 1.0), time.time()]
            stood_still = max(later - earlier for earlier, later in pairwise(honest))
            last = max(reader.delivered(who, since, key=key), default=since)
            assert last - since < within + stood_still, f"{reader.name} delivered for {last - since:.3f} s"

    def kid(self, role: str) -> str:
        """Return the id of an agent's key."""
        return self.keys[role].key_id.decode()

    def edit(self, name: str, pattern: str, text: str) -> None:
        """Replace what a pattern finds in a file, in one step."""
        path = self.directory / name
        changed, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
        assert count, (name, pattern)
        beside = path.with_suffix(".new")
        beside.write_text(changed)
        beside.replace(path)
