"""A realm whose agents are what they are elsewhere: a workload of SPIFFE, and a user of NATS; and who reads them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import nats

from tests.support import nats_tokens
from tests.support.broker_tools import admin_of
from tests.support.nats_tokens import Holder, creds, write_secret
from tests.support.workload_api import Authority, Svid, WorkloadApi
from watchword import SigningKey, Watchword, load
from watchword.jwk import to_jwk, to_jwks
from watchword_adapters.cli import main

ONCALL = "agent://acme/oncall"
PLANNER = "spiffe://acme.example/planner"
WORKER = "agent://acme/worker"


class Identities:
    """Settings, bundles, tokens and credentials in a directory; ``bus`` is ``nats`` or ``kafka``.

    ``check_every`` is how often readers look at files and at the channel, ``key_files`` are public keys that stay.
    """

    def __init__(  # noqa: PLR0917 - made by ``on`` only
        self, directory: Path, api: WorkloadApi, root: Authority, bus: str, address: str, name: str
    ) -> None:
        self.directory, self.api, self.root = directory, api, root
        self.bus, self.address, self.name = bus, address, name
        self.check_every = "0.5s"
        self.key_files = ["operators.jwks"]
        self.account, self.user = nats_tokens.account(), nats_tokens.user()
        self.revoked: dict[str, int] = {}
        self.tokens = directory / "jwt"
        self.tokens.mkdir()
        self.trust(root)
        self.write_account()
        self.admit(self.user)
        self.become(self.user)
        key = SigningKey.generate()
        write_secret(directory / "oncall.pem", key.to_pem().decode())
        oncall = key.verification_key(ONCALL)
        (directory / "oncall.jwk").write_text(json.dumps(to_jwk(oncall)))
        (directory / "operators.jwks").write_text(to_jwks([oncall]))
        self.write("oncall", ONCALL, '[signer]\nkey = "oncall.pem"\n')
        self.write("planner", PLANNER, f'[signer]\nsource = "spiffe"\nsocket = "{api.socket}"\n')
        self.write("worker", WORKER, '[signer]\nsource = "nkey"\nkey = "worker.creds"\n')

    @classmethod
    @asynccontextmanager
    async def on(cls, directory: Path, bus: str, address: str, name: str) -> AsyncIterator[Self]:
        """Make them, and the channels that they need."""
        root = Authority()
        with TemporaryDirectory(prefix="ww-") as short:  # a unix socket's path has 107 bytes
            api = WorkloadApi(Path(short), [root.issue()], [root])
            try:
                made = cls(directory, api, root, bus, address, name)
                await made.types("control", "init")
                yield made
            finally:
                await asyncio.to_thread(api.stop)

    async def types(self, *command: str, by: str = "oncall") -> None:
        """Type a command."""
        code = await asyncio.to_thread(main, [*command, "-c", str(self.directory / f"{by}.toml")])
        assert code == 0, command

    def write(self, name: str, principal: str, signer: str = "") -> Path:
        """Write the settings of a process."""
        path = self.directory / f"{name}.toml"
        path.write_text(
            f'realm = "prod"\nprincipal = "{principal}"\n{signer}'
            f'[[keys]]\nsource = "files"\npaths = {json.dumps(self.key_files)}\n'
            f'[[keys]]\nsource = "spiffe"\ncheck_every = "{self.check_every}"\n'
            '[keys.bundles]\n"acme.example" = "bundle.pem"\n'
            f'[[keys]]\nsource = "nkeys"\njwts = ["jwt"]\naccounts = ["{self.account.public}"]\n'
            f'principal = "agent://acme/{{user_name}}"\ncheck_every = "{self.check_every}"\n'
            f'[replay]\nstate = "state-{name}"\n[{self.bus}]\nservers = ["{self.address}"]\n'
            f'[control]\nchannel = "{self.bus}://prod/{self.name}.control"\n'
            f'presence = "{self.bus}://prod/{self.name}.presence"\nannounce_every = "1s"\n'
            f'[[control.operators]]\nprincipal = "{ONCALL}"\nmay = ["contain", "release", "revoke"]\nover = ["**"]\n'
        )
        return path

    async def agent(self, name: str) -> Watchword:
        """Load an agent: one that signs by an SVID waits until readers can know it."""
        return await asyncio.to_thread(load, self.directory / f"{name}.toml", telemetry=False)

    async def reader(self, name: str) -> Watchword:
        """Load a process that reads, and begins without a floor."""
        self.write(name, f"agent://acme/{name}")
        await self.types("init", by=name)
        return await self.agent(name)

    # SPIFFE

    def trust(self, *roots: Authority) -> None:
        """Write the bundle of the trust domain."""
        self._replace("bundle.pem", b"".join(root.pem for root in roots))

    def rotate(self) -> Svid:
        """Have the planner get a new SVID."""
        svid = self.root.issue()
        self.api.update([svid], [self.root])
        return svid

    # NKeys

    def write_account(self) -> None:
        """Write what the account says of itself, and whom it has revoked."""
        token = self.account.says("account", self.account, "AGENTS", revocations=self.revoked)
        self._replace("jwt/AGENTS.jwt", token.encode())

    def admit(self, user: Holder) -> None:
        """Have the account say that someone is its user ``worker``."""
        self._replace(f"jwt/{user.public}.jwt", self.account.says("user", user, "worker").encode())

    def become(self, user: Holder) -> None:
        """Give the worker a user's credentials."""
        text = creds(self.account.says("user", user, "worker"), user.seed)
        beside = write_secret(self.directory / "worker.creds.new", text)
        beside.replace(self.directory / "worker.creds")
        self.user = user

    def _replace(self, name: str, data: bytes) -> None:
        path = self.directory / name
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(path)


async def forget(bus: str, address: str, name: str) -> None:
    """Remove the channels whose names begin so."""
    if bus == "nats":
        admin = await nats.connect(address)
        for one in await admin.jetstream().streams_info():
            if any(subject.startswith(name) for subject in one.config.subjects or ()):
                await admin.jetstream().delete_stream(one.config.name or "")
        await admin.close()
        return
    async with admin_of(address) as kafka:
        await kafka.delete_topics([topic for topic in await kafka.list_topics() if topic.startswith(f"{name}.")])
