"""``docs/rotation.md``, rehearsed: each command, in order, on both buses; no honest message is rejected."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.trust.world import PLANNER
from tests.support.realm import RATE, Realm, Step

pytestmark = pytest.mark.usefixtures("children_not_traced")

REPORTER = "agent://acme/reporter"
OLD, SECOND, THIRD = "Rk2nUw5mZq0bXc7d", "Wd5cRk8vZn3xQe6t", "Tb8yLf3hVs6gJp1x"


class Rehearsal:
    """What is done beside the commands, and what holds after each."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm
        self._rejected: list[int] = []
        self.names = {"root.jwks": "operators.jwks", "agents.jwks": "operators.jwks", OLD: realm.kid("planner")}
        """What the page calls otherwise: files, and the ids of keys that are made."""

    def steps(self) -> list[Step]:
        """Return all that is typed, and what holds then."""
        keygen = "watchword keygen --principal agent://acme/{0} --private {0}-2.pem --public {0}-2.jwk"
        keys = "watchword key list agent://acme/planner"
        return [
            Step(
                text="watchword key rotate planner.toml --life 90d",
                before=self.count,
                learns=SECOND,
                after=self.second_key_flows,
            ),
            Step(text=f"{keys} --ending 120d --json", code=1),
            Step(text=keygen.format("planner"), learns=THIRD),
            Step(text="watchword key publish planner-2.jwk"),
            Step(text="mv planner-2.pem planner.pem", before=self.stolen, after=self.third_key_flows),
            Step(text=f"{keys} --json", after=self.end_is_written),
            Step(text="watchword key publish old.jwk", after=self.thief_is_late),
            Step(text=keygen.format("reporter"), before=self.count),
            Step(text="watchword jwks agents.jwks reporter-2.jwk --output agents.jwks"),
            Step(text="mv reporter-2.pem reporter.pem", before=self.file_is_read, after=self.reporter_has_switched),
            Step(text=keygen.format("oncall")),
            Step(text="watchword jwks root.jwks oncall-2.jwk --output root.jwks"),
            Step(text="mv oncall-2.pem oncall.pem", before=self.file_is_read),
            Step(
                text="watchword contain agent://acme/nobody --for 1m --why DRILL-1", after=self.operators_old_key_ends
            ),
            Step(text=f"{keys} --config security.toml --json", after=self.all_goes_on),
        ]

    async def count(self) -> None:
        """Note what has been rejected so far."""
        self._rejected = await self._counted()

    async def _counted(self) -> list[int]:
        counts = [await reader.counts() for reader in self._realm.reading]
        return [sum(count for what, count in one.items() if what != "delivered") for one in counts]

    async def _none_rejected(self) -> None:
        assert await self._counted() == self._rejected, [await one.counts() for one in self._realm.reading]

    async def second_key_flows(self) -> None:
        """See that the agent, which runs on, signs with the new key."""
        await self._realm.come(PLANNER, key=self.names[SECOND])
        await self._none_rejected()

    async def stolen(self) -> None:
        """Keep a copy of the key that is to end, as a thief would."""
        directory = self._realm.directory
        shutil.copy(directory / "planner.pem", directory / "thief.pem")
        text = (directory / "planner.toml").read_text()
        (directory / "thief.toml").write_text(
            text.replace('"planner.pem"', '"thief.pem"').replace("state-planner", "state-thief")
        )

    async def third_key_flows(self) -> None:
        """See that the agent signs with the key that was put in its file's place."""
        await self._realm.come(PLANNER, key=self.names[THIRD])
        await self._none_rejected()

    async def end_is_written(self) -> None:
        """Write the old key into a file, with its end, as the page says."""
        lines = await self._realm.types("key", "list", PLANNER, "--json")
        (old,) = [key for line in lines.splitlines() if (key := json.loads(line))["kid"] == self.names[SECOND]]
        (self._realm.directory / "old.jwk").write_text(json.dumps(old | {"exp": int(time.time())}))

    async def thief_is_late(self) -> None:
        """See that nothing is heard that the old key signs after its end, and all of the new one."""
        realm = self._realm
        await self._none_rejected()
        since = time.time()
        await realm.member("agent", "thief", realm.tasks, RATE)
        await realm.stop(PLANNER, "key_not_valid", key=self.names[SECOND])
        assert all(one.delivered(PLANNER, since, key=self.names[SECOND]) == [] for one in realm.reading)
        await realm.stop_sending("thief")
        await realm.come(PLANNER, key=self.names[THIRD])

    async def file_is_read(self) -> None:
        """Wait until all readers have read the file, as the page says: they know a key that came into it later."""
        realm, probe = self._realm, f"probe-{len(self._realm.keys)}"
        realm.write(probe, follows=False)
        await realm.joins("operators.jwks", f"{probe}.jwk")
        await realm.member("agent", probe, realm.tasks, RATE)
        await realm.come(f"agent://acme/{probe}")
        await realm.stop_sending(probe)
        await realm.come(REPORTER)
        await self.count()

    async def reporter_has_switched(self) -> None:
        """See that its new key is in use, give the old one its end in the file, and see that all continues."""
        realm = self._realm
        await realm.come(REPORTER, key=_kid(realm.directory / "reporter-2.jwk"))
        _end(realm.directory / "operators.jwks", realm.kid("reporter"))
        await realm.come(REPORTER)
        await self._none_rejected()

    async def operators_old_key_ends(self) -> None:
        """Give it an end, with which nothing lapses."""
        _end(self._realm.directory / "operators.jwks", self._realm.kid("oncall"))

    async def all_goes_on(self) -> None:
        """See that the new operator's key is obeyed, and that what the old one gave continues to hold."""
        realm = self._realm
        await self._none_rejected()
        await realm.types("contain", PLANNER)
        await realm.stop(PLANNER, "contained")
        await realm.types("release", PLANNER)
        await realm.come(PLANNER, key=self.names[THIRD])
        await realm.come(REPORTER)


def _kid(path: Path) -> str:
    return str(json.loads(path.read_text())["kid"])


def _end(path: Path, kid: str) -> None:
    """Give a key in a set its end, now."""
    held = json.loads(path.read_text())
    (key,) = [one for one in held["keys"] if one["kid"] == kid]
    key["exp"] = int(time.time())
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(held))
    beside.replace(path)


@pytest.mark.parametrize("bus", ["nats", pytest.param("kafka", marks=pytest.mark.needs_kafka("topic_ids"))])
async def test_the_page_holds(
    bus: str, request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Promise (A23): keys of all kinds are replaced under way, and no honest message is rejected for it."""
    address = request.getfixturevalue("nats_url" if bus == "nats" else "kafka_bootstrap")
    async with Realm.at_work(tmp_path, bus, address, unique("rotation")) as realm:
        await realm.give("planner")
        realm.write("reporter", follows=False)
        await realm.joins("operators.jwks", "reporter.jwk")
        for role, who in (("planner", PLANNER), ("reporter", REPORTER)):
            await realm.member("agent", role, realm.tasks, RATE)
            await realm.come(who)
        rehearsal = Rehearsal(realm)
        await realm.follow("rotation.md", rehearsal.steps(), rehearsal.names)
