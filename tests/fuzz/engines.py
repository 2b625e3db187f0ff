"""Two engines before the same messages, in the same order: what differs is a fault.

Each input is a world and a few calls to its verifier with runs of messages: honest ones in trees and alone, on both
buses and as a client's records, and such ones changed in their bytes, their CBOR, their headers or what surrounds them,
most of them signed again after the change. Or it is messages to be signed. An input comes of one seed and is played
twice. Seeds that once differed stand in ``seeds.txt``, and are played by ``tests/properties/test_engines.py``; a seed
is worth something only while ``inputs.py`` and ``shapes.py`` make the same of it.

    python -m tests.fuzz.engines --seconds 3600 --seed 1 --report build/reports/fuzz-1.json
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from tests.fuzz.inputs import Input, Outgoing
from tests.unit.core.world import ALICE, ALICE_KEY, NOW, at_once, in_turns
from watchword import Rejected, Unavailable, VerificationKey, VerifiedMessage, WatchwordError, engine
from watchword.looks import Looks
from watchword.message import log_name
from watchword.quota import Bounds
from watchword.spi import Admission, Claim, MemoryReplayStore, Signer, Verifier
from watchword_adapters.kafka.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fuzz.inputs import Call
    from watchword.engine import Native
    from watchword.guard import Note
    from watchword.spi import Message

SEEDS: Final = Path(__file__).with_name("seeds.txt")


class Recorder:
    """A journal that keeps what it is given, and may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.given: list[Note] = []

    def write(self, notes: Sequence[Note]) -> None:
        """Keep them."""
        if self.fails:
            raise OSError
        self.given += notes


class Keys:
    """A key source that records what it is asked for, and fails as instructed."""

    def __init__(
        self, keys: Sequence[VerificationKey], failures: dict[tuple[str, bytes], list[Exception | None]]
    ) -> None:
        self.known = keys
        self._failures = {pair: [*answers] for pair, answers in failures.items()}
        self.asked: list[tuple[str, bytes]] = []

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See KeySource."""
        pair = principal, key_id
        self.asked.append(pair)
        answers = self._failures.get(pair)
        failure = answers.pop(0) if answers else None
        if failure is not None:
            raise failure
        of_id = [key for key in self.known if key.key_id == key_id]
        return next((key for key in of_id if key.principal == principal), of_id[0] if of_id else None)


class Shared:
    """A shared store that notes its claims."""

    def __init__(self) -> None:
        self.memory = MemoryReplayStore(horizon=None)
        self.claims: list[Claim] = []

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        self.claims.append(claim)
        return self.memory.admit(claim)


class Bulk(Shared):
    """One that takes many claims at once."""

    async def claim_many(self, claims: Sequence[Claim]) -> list[Admission]:
        """See BulkStore."""
        self.claims += claims
        return [self.memory.admit(claim) for claim in claims]


def told(verdict: object) -> object:
    """Return all that a verdict says, NaN as something that is equal to itself."""
    if isinstance(verdict, VerifiedMessage):
        return repr(verdict), verdict.value, verdict.key, verdict.headers, hash(verdict), verdict.redelivered
    if isinstance(verdict, Rejected):
        return str(verdict), verdict.reason, verdict.channel, verdict.claimed_principal
    if isinstance(verdict, Unavailable):
        return type(verdict).__name__, str(verdict), repr(verdict.__cause__)
    return verdict


async def _together(jobs: Sequence[Callable[[], bool]]) -> list[bool]:
    return [job() for job in jobs]


async def _failing(_: Sequence[Callable[[], bool]]) -> list[bool]:
    raise OSError


_CHECKS: Final = {"together": _together, "fails": _failing, "none": None}


class Play:
    """A verifier before one input, and all that can be seen of it."""

    def __init__(self, given: Input) -> None:
        self.now = NOW + 1.0
        self.given = given
        bounds = Bounds(per_principal=10, in_all=14, unverified=3) if given.small else Bounds.within(1 << 20)
        self.shared = Bulk() if given.store == "bulk" else Shared()
        self.keys = Keys(given.keys, given.failures)
        self.journal = None if given.noted is None else Recorder(fails=given.noted == "fails")
        self.judge = Verifier(
            realm="prod",
            keys=self.keys,
            replay=MemoryReplayStore(horizon=given.policy.horizon, bounds=bounds)
            if given.store == "guard"
            else self.shared,
            policy=given.policy,
            clock=lambda: self.now,
            principal=given.principal,
            journal=self.journal,  # type: ignore[arg-type] # as far as it is used
        )
        self.memory = self.judge._guard
        if self.journal is not None:
            self.memory.note("sub#")
            self.memory.note("group#tasks/0")

    def seen(self) -> list[object]:
        """Play all calls; the first is how many signatures were checked."""
        checks = 0
        verify = VerificationKey.verifies

        def verifies(self: VerificationKey, signature: bytes, data: bytes) -> bool:
            nonlocal checks
            checks += 1
            return verify(self, signature, data)

        with mock.patch.object(VerificationKey, "verifies", verifies):
            seen = [one for call in self.given.calls for one in (self.answer(call), self.known())]
        evidence = sorted(self.judge.trust.score.held())  # type: ignore[attr-defined] # Demerits has it
        notes = None if self.journal is None else self.journal.given
        return [checks, *seen, self.keys.asked, self.shared.claims, notes, evidence]

    def answer(self, call: Call) -> object:
        """Return what the verifier says, after what happens before."""
        self.now += call.step
        for act in call.acts:
            self.act(*act)
        try:
            return self.asked(call, self.messages(call))
        except Unavailable as down:
            return told(down)

    def act(self, what: str, *given: Any) -> None:
        """Let something happen to the verifier or its memory."""
        judge = self.judge
        match what:
            case "begin":
                judge.begin(given[0], floor=given[1])
            case "raise":
                judge.raise_floor(*given)
            case "resume":
                notes = [] if self.journal is None else [*self.journal.given]
                in_turns(judge.resume(given[0], floor=given[1], notes=notes))
            case "forget":
                judge.forget(*given)
            case "pass":
                judge.memory(given[0]).pass_time(given[1])
            case "acknowledge":
                judge.acknowledge_at(*given)
            case "unjudged":
                judge.remember_unjudged(given[0], comes_again=given[1])
            case _:
                policy, self.keys.known = given
                judge.switch(policy, self.keys)

    def messages(self, call: Call) -> Sequence[Message]:
        """Return what the verifier is given."""
        if call.looks is None:
            return call.messages
        looks = Looks()
        for look in call.looks:
            looks.add(*look)
        return Records(call.records, "prod", "group", looks, self.now, exclusive=True)

    def asked(self, call: Call, messages: Sequence[Message]) -> object:
        """Ask the verifier."""
        judge, check, left = self.judge, _CHECKS[call.check], [call.enough or 0]

        def enough() -> bool:
            left[0] -= 1
            return left[0] < 0

        match call.what:
            case "verify":
                verdicts = at_once(
                    judge.verify_many(
                        messages,
                        call.expected,
                        check=check,
                        enough=None if call.enough is None else enough,
                        keys=self.keys if call.own_keys else None,
                    )
                )
                for message, verdict in zip(messages, verdicts, strict=False):
                    if isinstance(verdict, VerifiedMessage) and message.position and verdict.issued_at % 2:
                        judge.acknowledge_at(log_name(message), message.position.offset)
                return [told(verdict) for verdict in verdicts]
            case "recall":
                return at_once(judge.recall_many(messages, unacked=call.unacked, check=check or _together))
            case "reverify":
                return [told(verdict) for verdict in at_once(judge.reverify(messages, check=check))]
            case "times":
                return at_once(judge.times_of_issue(messages, check=check or _together))
            case _:
                stamped = [one for one in messages if one.appended_at is not None]
                return [told(one) for one in at_once(judge.authenticate(stamped, check=check))]

    def known(self) -> list[object]:
        """Return what the verifier's memory knows."""
        memory = self.memory
        logs = sorted(memory._logs)
        return [
            len(memory),
            sorted(memory._quota.held().items()),
            [(log, memory.floor(log), memory.lowest_needed(log), *inside(memory, log)) for log in logs],
            sorted(memory._proven),
            [*memory.warnings],
            memory._offered,
        ]


def inside(memory: MemoryReplayStore, name: str) -> list[object]:
    """Return what a guard knows of one log, but for the numbers that its secrets and the order of a table make."""
    log, names = memory._logs[name], memory._quota._names
    return [
        sorted((names[owner], count) for owner, count in log.ids.owners().items()),
        len(log.pins.by_key),
        sorted(log.latest.items()),
        log.unverified,
        log.ahead,
        log.highest,
        log.start,
        sorted(log.key_floors.own.items()),
        log.key_floors.shared,
    ]


def sign(given: Outgoing) -> list[object]:
    """Return what a signer makes of messages, under ids that are all alike; or what it says that is wrong."""
    signer = Signer(realm="prod", principal=ALICE, key=ALICE_KEY, clock=lambda: NOW, batch=given.batch)
    options: dict[str, Any] = {"recipient": given.recipient, "expires_at": given.expires_at}
    with mock.patch("watchword.unsigned.os.urandom", bytes):
        try:
            if given.many:
                return [*at_once(signer.sign_many(given.messages, **options))]
            return [*signer.sign_now([signer.prepare(message, **options) for message in given.messages])]
        except (WatchwordError, TypeError, AttributeError, ValueError) as error:
            return [type(error).__name__, str(error)]


def differ(seed: int, native: Native) -> tuple[list[object], list[object]] | None:
    """Return what each engine shows of one input, if that differs; the native engine's first.

    It may check a signature less, where copies of one message stand in one run; never one more.
    """
    if seed % 4 == 0:
        with mock.patch.object(engine, "native", return_value=native):
            shown = sign(Outgoing(seed))
        with mock.patch.object(engine, "native", return_value=None):
            wanted = sign(Outgoing(seed))
        return None if shown == wanted else (shown, wanted)
    with mock.patch.object(engine, "native", return_value=native):
        (checks, *shown) = Play(Input(seed)).seen()
    with mock.patch.object(engine, "native", return_value=None):
        (most, *wanted) = Play(Input(seed)).seen()
    assert isinstance(checks, int)
    assert isinstance(most, int)
    same = comparable(shown) == comparable(wanted) and checks <= most
    return None if same else ([checks, *shown], [most, *wanted])


def comparable(seen: object) -> str:
    """Return what was seen as text in which a number is the same whatever its type."""
    return re.sub(r"(\d)\.0\b", r"\1", repr(seen))


def kept() -> list[int]:
    """Return the seeds that once differed: the first word of each line of their file."""
    lines = SEEDS.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def main() -> None:
    """Fuzz for some time, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one; each input counts one on")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    native = engine.native()
    assert native is not None, "the native engine is not here: make native"
    begun, seed, different = time.process_time(), options.seed, list[int]()
    while time.process_time() - begun < options.seconds:
        if differ(seed, native) is not None:
            different.append(seed)
            print(f"seed {seed}: the engines differ", flush=True)  # noqa: T201 - a program's output
        seed += 1
    found = {
        "inputs": seed - options.seed,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "first": options.seed,
        "different": different,
    }
    print(json.dumps(found))  # noqa: T201 - as above
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
