"""What a real NATS server says of operators' and accounts' tokens, and what ``nkeys`` says of the same ones."""

import asyncio
import base64
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error

from tests.brokers.broker import NotHereError
from tests.brokers.nats import wheel
from tests.support import nats_tokens
from tests.support.nats_tokens import Holder
from watchword_adapters.nkeys.source import UserTokens

NOW = int(time.time())


class Domain:
    """An operator with a signing key, an account with one, and a stranger's operator and account."""

    def __init__(self) -> None:
        self.operator, self.system, self.account = nats_tokens.operator(), nats_tokens.account(), nats_tokens.account()
        self.key_of_operator, self.key_of_account = nats_tokens.operator(), nats_tokens.account()
        self.stranger, self.revoked = nats_tokens.account(), nats_tokens.user()
        self.operator_token = self.operator.operator_token(
            signing_keys=[self.key_of_operator.public], system_account=self.system.public
        )
        self.account_token = self.key_of_operator.says(
            "account",
            self.account,
            "AGENTS",
            signing_keys=[self.key_of_account.public],
            revocations={self.revoked.public: NOW - 100},
        )

    def config(self) -> str:
        """Return the server's configuration."""
        system = self.operator.says("account", self.system, "SYS")
        return (
            f"operator: {self.operator_token}\nsystem_account: {self.system.public}\nresolver: MEMORY\n"
            f"resolver_preload: {{\n{self.account.public}: {self.account_token}\n{self.system.public}: {system}\n}}\n"
        )


Case = Callable[[Domain, Holder], str]
CASES: dict[str, tuple[Case, bool]] = {
    "by its account": (lambda domain, user: domain.account.says("user", user), True),
    "by a signing key": (
        lambda domain, user: domain.key_of_account.says("user", user, issuer_account=domain.account.public), True,
    ),
    "by a signing key that names no account": (lambda domain, user: domain.key_of_account.says("user", user), False),
    "by a stranger": (lambda domain, user: domain.stranger.says("user", user), False),
    "by a stranger in the account's name": (
        lambda domain, user: domain.stranger.says("user", user, issuer_account=domain.account.public), False,
    ),
    "that has ended": (lambda domain, user: domain.account.says("user", user, exp=NOW - 10), False),
    "that begins later": (lambda domain, user: domain.account.says("user", user, nbf=NOW + 3600), False),
    "that ends later": (lambda domain, user: domain.account.says("user", user, exp=NOW + 3600), True),
    "revoked": (lambda domain, _: domain.account.says("user", domain.revoked, iat=NOW - 100), False),
    "issued after its revocation": (lambda domain, _: domain.account.says("user", domain.revoked, iat=NOW - 99), True),
}  # fmt: skip


async def is_let_in(address: str, token: str, user: Holder) -> bool:
    """Return True if the server lets the user connect."""

    async def ignore(_: Exception) -> None: ...

    client = Client()
    try:
        await client.connect(
            address,
            user_jwt_cb=lambda: bytearray(token.encode()),
            signature_cb=lambda nonce: base64.b64encode(user.private.sign(nonce.encode())),
            allow_reconnect=False,
            connect_timeout=10,
            error_cb=ignore,
        )
        await client.flush()
    except Error:
        return False
    finally:
        await client.close()
        if client._transport is not None:
            client._transport.close()  # type: ignore[no-untyped-call]  # nats-py's
    return True


async def test_a_server_and_readers_agree_whose_users_they_are(tmp_path: Path) -> None:
    """Whom the server lets in has a key that is valid now, and whom it does not has none: each case by both."""
    domain = Domain()
    path = tmp_path / "server.conf"
    path.write_text(domain.config())
    try:
        broker = await asyncio.to_thread(wheel, tmp_path, "-c", str(path))
    except NotHereError as error:
        pytest.skip(str(error))
    try:
        for name, (made, is_user) in CASES.items():
            user = domain.revoked if "revo" in name else nats_tokens.user()
            token = made(domain, user)
            assert await is_let_in(broker.address, token, user) is is_user, name
            directory = tmp_path / name.replace(" ", "-")
            directory.mkdir()
            for number, one in enumerate((domain.operator_token, domain.account_token, token)):
                (directory / f"{number}.jwt").write_text(one)
            kind = UserTokens(operators=[domain.operator.public])
            keys, _ = kind.read_keys(kind.list_files([directory]))
            now = time.time()
            valid = [
                key
                for key in keys
                if (key.not_before or 0) <= now < (key.not_after or now + 1) and key.revoked_at is None
            ]
            assert [key.principal for key in valid] == (
                [f"nats://{domain.account.public}/{user.public}"] if is_user else []
            ), name
    finally:
        await asyncio.to_thread(broker.stop)
