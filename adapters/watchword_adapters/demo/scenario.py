"""The demo in two acts: the same agents and the same attacks, first without Watchword and then with it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

from watchword_adapters.demo.attacks import ATTACKS, RESTARTED, Loot
from watchword_adapters.demo.stage import AUDITOR, REALM

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import VerificationKey
    from watchword.spi import Signer
    from watchword_adapters.demo.attacks import Attack, Raw
    from watchword_adapters.demo.stage import Stage

HONEST_COMMANDS: Final = 5
_PATIENCE: Final = 3.0  # seconds until a handler that does not answer counts as dead; it takes milliseconds
FORGED_ANSWER: Final = b'{"instances": 0, "by": "attacker"}'


@dataclass(slots=True)
class Outcome:
    """The effect of one attack in one act."""

    id: str
    attack: str
    reached_handler: bool
    client_died: bool = False
    instances: int = 0
    reason: str | None = None


@dataclass(slots=True)
class Act:
    """One act's results. ``instances`` were started in all; the planner had asked for ``wanted``."""

    outcomes: list[Outcome] = field(default_factory=list)
    sent: int = 0
    delivered: int = 0
    asked: int = 0
    answered: int = 0
    wanted: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The results of both acts."""

    bus: str
    broker: str
    without: Act
    guarded: Act

    @property
    def holds(self) -> bool:
        """True if, with Watchword, no attack reached a handler, and no honest message or request was lost."""
        act = self.guarded
        reached = any(outcome.reached_handler or outcome.client_died for outcome in act.outcomes)
        return not reached and (act.sent, act.asked) == (act.delivered, act.answered)

    def to_json(self) -> dict[str, object]:
        """Return the report of ``watchword demo --json``."""
        return {
            "bus": self.bus,
            "broker": self.broker,
            "without": {
                "attacks_obeyed": sum(outcome.reached_handler for outcome in self.without.outcomes),
                "instances_wanted": self.without.wanted,
                "instances_started": self.without.instances,
            },
            "attacks": [asdict(outcome) for outcome in self.guarded.outcomes],
            "honest": {"sent": self.guarded.sent, "delivered": self.guarded.delivered},
            "requests": {"asked": self.guarded.asked, "answered": self.guarded.answered},
            "instances_wanted": self.guarded.wanted,
            "instances_started": self.guarded.instances,
        }


class Director:
    """Plays one act on a stage, and is the controller's handler in it."""

    def __init__(
        self,
        *,
        planner: VerificationKey | None = None,
        earlier: Signer | None = None,
        counts: Callable[[], Counter[str]] | None = None,
    ) -> None:
        self._planner = planner
        self._earlier = earlier
        self._counts = counts
        self._act = Act()
        self._ordered: dict[str, int] = {}
        self._obeyed: set[str] = set()
        self._intruders = 0
        self._arrival = asyncio.Event()

    async def handle(self, value: bytes | None) -> None:
        """Obey a command, like an agent that trusts its bus."""
        order, instances = "", 0
        try:
            command = json.loads(value or b"")
            order, instances = str(command["order"]), int(command["instances"])
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # the message reached the handler all the same
        self._act.instances += instances
        if self._ordered.get(order) == instances and order not in self._obeyed:
            self._obeyed.add(order)
            self._act.delivered += 1
            self._arrival.set()
        else:
            self._intruders += 1

    async def play(self, stage: Stage) -> Act:
        """Send honest messages, then every attack between two honest messages."""
        await stage.open()
        try:
            await self._ask(stage)  # the first one, as a newcomer would try it
            for _ in range(HONEST_COMMANDS):
                await self._command(stage, instances=2)
            await stage.send(
                stage.reports, self._body("report", 500), key=b"eu", headers={"priority": "normal"}, recipient=None
            )
            await stage.send(
                stage.commands, self._body("audit", 500), key=b"eu", headers={"priority": "normal"}, recipient=AUDITOR
            )
            before = self._intruders
            await self._command(stage, instances=1)
            self._intruders = before  # without Watchword the auditor's message reaches every agent
            loot = await self._loot(stage)
            for attack in ATTACKS:
                if stage.bus in attack.buses:
                    await self._try(stage, attack, attack.forge(loot))
            await self._interfere(stage)
            if stage.bus in RESTARTED.buses:
                await stage.revive()
                await self._try(stage, RESTARTED, RESTARTED.forge(loot))
                await self._ask(stage)
        finally:
            await stage.close()
        return self._act

    def _body(self, order: str, instances: int) -> bytes:
        return json.dumps({"order": order, "action": "scale_up", "instances": instances}).encode()

    async def _command(self, stage: Stage, *, instances: int) -> bool:
        """Send an honest command and wait until it is obeyed; False if it never is."""
        order = f"planner-{len(self._ordered)}"
        self._ordered[order] = instances
        self._act.sent += 1
        self._act.wanted += instances
        self._arrival.clear()
        await stage.send(
            stage.commands, self._body(order, instances), key=b"eu", headers={"priority": "normal"}, recipient=None
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._arrival.wait()
        except TimeoutError:
            return False
        return True

    async def _loot(self, stage: Stage) -> Loot:
        """Collect what the attacker captured."""

        def find(name: str, order: bytes) -> list[Raw]:
            return [raw for raw in stage.captured if raw.name == name and order in (raw.value or b"")]

        async with asyncio.timeout(_PATIENCE):
            while not all(find(*wanted) for wanted in self._wanted(stage)):
                await stage.heard.wait()
                stage.heard.clear()
        return Loot(
            bus=stage.bus,
            realm=REALM,
            command=find(stage.commands, b"planner-0")[0],
            another=find(stage.commands, b"planner-1")[0],
            elsewhere=find(stage.reports, b"report")[0],
            for_auditor=find(stage.commands, b"audit")[0],
            planner=self._planner,
            earlier=self._earlier,
        )

    def _wanted(self, stage: Stage) -> list[tuple[str, bytes]]:
        orders = (b"planner-0", b"planner-1", b"audit")
        return [(stage.reports, b"report"), *((stage.commands, order) for order in orders)]

    async def _try(self, stage: Stage, attack: Attack, raw: Raw) -> None:
        """Send the attack, then an honest message: once that is through, the attack has had its chance."""
        intruders, instances, wanted = self._intruders, self._act.instances, self._act.wanted
        before = self._counted()
        await stage.attack(raw)
        alive = await self._command(stage, instances=1)
        if not alive:
            await stage.revive()
        started = self._act.instances - instances - (self._act.wanted - wanted if alive else 0)
        self._act.outcomes.append(
            Outcome(
                id=attack.id,
                attack=attack.title,
                reached_handler=self._intruders > intruders,
                client_died=not alive,
                instances=started,
                reason=self._reason(before),
            )
        )

    async def _interfere(self, stage: Stage) -> None:
        """Let the planner send a request, which the attacker answers first."""
        before = self._counted()
        answer = await self._ask(stage)
        if answer is not None:
            outcome = Outcome("A22", "forged answer, ahead of the real one", reached_handler=answer == FORGED_ANSWER)
            self._act.outcomes.append(replace(outcome, reason=self._reason(before)))

    async def _ask(self, stage: Stage) -> bytes | None:
        """Let the planner send a request, and count it; None if the bus has no requests."""
        try:
            answer = await stage.ask()
        except TimeoutError:
            answer = b""
        if answer is not None:
            self._act.asked += 1
            self._act.answered += answer not in {b"", FORGED_ANSWER}
        return answer

    def _counted(self) -> Counter[str]:
        return Counter() if self._counts is None else self._counts()

    def _reason(self, before: Counter[str]) -> str | None:
        """Return the reasons of rejections that the audit trail has counted since."""
        return ", ".join(sorted(reason for reason in self._counted() - before if reason != "delivered")) or None
