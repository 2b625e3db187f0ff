"""``docs/incident.md``, rehearsed: each command, in order, on both buses, while readers read and the attacker sends."""

import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from aiokafka.admin import NewTopic

from benchmarks.trust.world import CONTROLLER, PATIENCE, PLANNER, READERS
from tests.support.broker_tools import admin_of, create_topics
from tests.support.realm import RATE, Realm, Step

pytestmark = pytest.mark.usefixtures("children_not_traced")

WRITTEN = """
[policy]
contained = ["agent://acme/planner"]
"""
OLD, NEW = "Rk2nUw5mZq0bXc7d", "Tb8yLf3hVs6gJp1x"
NOWHERE = {"nats": "nats://127.0.0.1:9", "kafka": "127.0.0.1:9"}


class Rehearsal:
    """What happens beside the commands: an attacker with the planner's key, a clean host, a thief at a desk."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm
        self._dead_since = 0.0
        self._copied = 0
        self.names = {
            "nats://prod/tasks": f"{realm.bus}://prod/{realm.tasks}",
            "root.jwks": "operators.jwks",
            OLD: realm.kid("planner"),
            "Hd4sQe9kWn2rMv7c": realm.kid("oncall"),
        }
        """What the page calls otherwise: the channel, the file with operators' keys, and what is made by chance."""

    def steps(self) -> list[Step]:
        """Return all that is typed, and what holds then."""
        on_desk = " --config security.toml"
        redrive = "watchword quarantine redrive --all --reason contained"
        return [
            Step(text="watchword contain agent://acme/planner --why INC-4711", after=self.contained),
            Step(
                text="watchword tail nats://prod/tasks --verify --count 20",
                code=1,
                never=f'"verified", "principal": "{PLANNER}"',
            ),
            Step(text="watchword who", again=True),
            Step(text="watchword control log"),
            Step(text="watchword key list agent://acme/planner --json"),
            Step(text="watchword key revoke Rk2nUw5mZq0bXc7d --yes", after=self.revoked),
            Step(
                text="watchword keygen --principal agent://acme/planner",
                folder="clean",
                learns=NEW,
                before=self.clean_host,
                after=self.carried,
            ),
            Step(text="watchword key publish planner.jwk", after=self.started_on_clean_host),
            Step(text="watchword quarantine list"),
            Step(text=f"{redrive} --reason key_revoked --limit 50", code=1),
            Step(text="watchword release agent://acme/planner", after=self.only_the_new_key_flows),
            Step(
                text="watchword contain agent://acme/planner --for 1h --why INC-4712",
                before=self.quarantine_counted,
                after=self.contained_and_copied,
            ),
            Step(text="watchword release agent://acme/planner", after=self.only_the_new_key_flows),
            Step(text=f"{redrive} --limit 100", code=None),
            Step(text="watchword contain 'agent://acme/**' --yes --why INC-4713", after=self.all_contained),
            Step(text="watchword contain agent://acme/planner --why INC-4713"),
            Step(text="watchword release 'agent://acme/**'", code=1, after=self.all_but_one_flow),
            Step(text="watchword release agent://acme/planner", after=self.only_the_new_key_flows),
            Step(
                text="watchword contain agent://acme/planner --why INC-4714",
                code=3,
                before=self.cut_off,
                after=self.written_into_settings,
            ),
            Step(
                text="watchword policy check agent://acme/planner nats://prod/tasks --config reader-1.toml",
                code=1,
                after=self.connected_again,
            ),
            Step(text=f"watchword control log{on_desk}", before=self.thief_at_desk),
            Step(text=f"watchword control adopt agent://acme/oncall{on_desk}", code=2, answer="n\n"),
            Step(text=f"watchword control adopt agent://acme/oncall{on_desk} --without 51 --without 52 --yes"),
            Step(text="watchword keygen --principal agent://acme/oncall --private oncall-2.pem --public oncall-2.jwk"),
            Step(text="watchword jwks root.jwks oncall-2.jwk --output root.jwks", after=self.revoked_in_the_root_file),
            Step(
                text=f"watchword key list agent://acme/oncall{on_desk} --json", after=self.only_what_was_adopted_holds
            ),
        ]

    async def contained(self) -> None:
        """See that nothing of the planner's is delivered any more within a second, and that others go on."""
        await self._realm.stop(PLANNER, "contained")
        await self._realm.come(CONTROLLER)

    async def quarantine_counted(self) -> None:
        """Note how many copies of contained messages there are."""
        self._copied = await self._copies()

    async def contained_and_copied(self) -> None:
        """See that it is contained, and wait until one of its messages is in quarantine, of which few are copied."""
        await self.contained()
        end = time.monotonic() + PATIENCE
        while await self._copies() <= self._copied:
            assert time.monotonic() < end, f"no more than {self._copied} copies of contained messages"

    async def _copies(self) -> int:
        listed = await self._realm.types("quarantine", "list", "--json", "--limit", "10000")
        return sum(json.loads(line)["reason"] == "contained" for line in listed.splitlines())

    async def revoked(self) -> None:
        """See that the key itself is dead, beside the containment."""
        await self._realm.stop(PLANNER, "key_revoked")
        self._dead_since = time.time()

    async def clean_host(self) -> None:
        """Take another folder for another host."""
        (self._realm.directory / "clean").mkdir()

    async def carried(self) -> None:
        """Bring the public key to the operator's desk, and its id."""
        shutil.copy(self._realm.directory / "clean" / "planner.jwk", self._realm.directory / "planner.jwk")

    async def started_on_clean_host(self) -> None:
        """Start the agent with its new key, and see that it is still contained."""
        realm = self._realm
        text = (realm.directory / "planner.toml").read_text()
        text = text.replace('"planner.pem"', '"clean/planner.pem"').replace("state-planner", "state-clean")
        (realm.directory / "clean.toml").write_text(text)
        # In step with the thief, who still sends, all that readers may copy could be the thief's, forever.
        await realm.member("agent", "clean", realm.tasks, 1.1 * RATE)
        await realm.stop(PLANNER, "contained")

    async def only_the_new_key_flows(self) -> None:
        """See that the agent is heard, and a holder of its old key is not."""
        await self._realm.come(PLANNER, key=self.names[NEW])
        await self._realm.stop(PLANNER, "key_revoked", key=self.names[OLD])
        for reader in self._realm.reading:
            assert reader.delivered(PLANNER, self._dead_since, key=self.names[OLD]) == []

    async def all_contained(self) -> None:
        """See that all are silent, honest ones too."""
        await self._realm.stop(CONTROLLER, "contained")
        await self._realm.stop(PLANNER, "contained")

    async def all_but_one_flow(self) -> None:
        """See that the end of a pattern lets go all but the one that has an entry of its own."""
        await self._realm.come(CONTROLLER)
        await self._realm.stop(PLANNER, "contained")

    async def cut_off(self) -> None:
        """Let nobody answer the operator."""
        realm = self._realm
        realm.edit("oncall.toml", r'^servers = \["[^"]*"\]', f'servers = ["{NOWHERE[realm.bus]}"]')

    async def written_into_settings(self) -> None:
        """Write what the page says into the files, and see that it holds within five seconds and a look."""
        for name in READERS:
            path = self._realm.directory / f"{name}.toml"
            path.write_text(path.read_text() + WRITTEN)
        await self._realm.stop(PLANNER, "contained", within=5.0 + 1.0)

    async def connected_again(self) -> None:
        """Connect the operator again, and take out of the files what was written there."""
        realm = self._realm
        realm.edit("oncall.toml", r'^servers = \["[^"]*"\]', f'servers = ["{realm.address}"]')
        for name in READERS:
            path = realm.directory / f"{name}.toml"
            path.write_text(path.read_text().replace(WRITTEN, ""))
        await realm.come(PLANNER, key=self.names[NEW])

    async def thief_at_desk(self) -> None:
        """Steal the operator's key, contain an honest agent, and kill its key for good."""
        realm = self._realm
        for name in ("oncall.pem", "operators.jwks"):
            shutil.copy(realm.directory / name, realm.directory / f"thief-{name}")
        text = (realm.directory / "oncall.toml").read_text()
        text = text.replace('"oncall.pem"', '"thief-oncall.pem"').replace("operators.jwks", "thief-operators.jwks")
        (realm.directory / "thief.toml").write_text(text.replace("state-oncall", "state-thief"))
        said = [
            await realm.types("contain", CONTROLLER, "--why", "routine", "--json", by="thief"),
            await realm.types("key", "revoke", "controller.jwk", "--yes", "--json", by="thief"),
        ]
        first, second = (json.loads(line)["position"] for line in said)
        self.names["--without 51 --without 52"] = f"--without {first} --without {second}"
        await realm.stop(CONTROLLER, "key_revoked")

    async def revoked_in_the_root_file(self) -> None:
        """Revoke the stolen key by hand, as the page says."""
        path = self._realm.directory / "operators.jwks"
        held = json.loads(path.read_text())
        for key in held["keys"]:
            if key["kid"] == self._realm.kid("oncall"):
                key["revoked"] = int(time.time())
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(held))
        beside.replace(path)

    async def only_what_was_adopted_holds(self) -> None:
        """See that the thief's words are gone, those to come too, and that the honest ones stand."""
        await self._realm.come(CONTROLLER)
        await self.only_the_new_key_flows()
        await self._realm.types("contain", CONTROLLER, by="thief")
        await self._realm.types("contain", "agent://acme/nobody", by="security")
        told = await self._realm.types("control", "log", by="security", code=1)
        assert "DOES NOT COUNT" in told.splitlines()[-2]
        await self._realm.come(CONTROLLER)


@asynccontextmanager
async def quarantine(bus: str, address: str, name: str) -> AsyncIterator[None]:
    """Make a place for copies, and delete it in the end."""
    if bus == "nats":
        connection = await nats.connect(address)
        stream = name.replace(".", "-")
        await connection.jetstream().add_stream(name=stream, subjects=[name])
        try:
            yield
        finally:
            await connection.jetstream().delete_stream(stream)
            await connection.close()
        return
    async with admin_of(address) as admin:
        await create_topics(admin, NewTopic(name, 1, 1))
        try:
            yield
        finally:
            await admin.delete_topics([name])


@pytest.mark.parametrize("bus", ["nats", pytest.param("kafka", marks=pytest.mark.needs_kafka("topic_ids"))])
async def test_the_page_holds(
    bus: str, request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Promise (A23, A24, A52): an operator who types the page's commands gets what it promises, after each one."""
    address = request.getfixturevalue("nats_url" if bus == "nats" else "kafka_bootstrap")
    name = unique("incident")
    table = f'[quarantine]\n{bus} = "{name}.quarantine"\nrate = "2/s"\n'
    async with (
        quarantine(bus, address, f"{name}.quarantine"),
        Realm.at_work(tmp_path, bus, address, name, table) as realm,
    ):
        (tmp_path / "oncall.toml").write_text((tmp_path / "oncall.toml").read_text() + table)
        await realm.give("planner")
        await realm.member("agent", "planner", realm.tasks, RATE)
        await realm.come(PLANNER)
        rehearsal = Rehearsal(realm)
        await realm.follow("incident.md", rehearsal.steps(), rehearsal.names)
