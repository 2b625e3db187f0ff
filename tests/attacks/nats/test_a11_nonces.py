"""A11: a NATS server chooses what its clients sign, and an agent signs its messages by the same seed."""

import asyncio
import base64
import json
from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.errors import Error

from tests.support import nats_tokens
from tests.support.nats_tokens import Holder
from watchword import Algorithm, SigningKey
from watchword.keys import thumbprint_id
from watchword.message import Channel
from watchword.spi import Message, Signer


class Recorder:
    """A signing back-end that keeps what it was given to sign."""

    def __init__(self, user: Holder) -> None:
        self.key_id, self.algorithm = thumbprint_id(user.private.public_key()), Algorithm.ED25519
        self._key = SigningKey(user.private)
        self.signed: list[bytes] = []

    async def sign(self, data: bytes) -> bytes:
        """Sign, and keep."""
        self.signed.append(data)
        return await self._key.sign(data)


async def signed_by_an_agent(user: Holder) -> list[bytes]:
    """Return what an agent gives its key to sign: for a message alone, and for two of them together."""
    recorder = Recorder(user)
    signer = Signer(realm="prod", principal="nats://A/U", key=recorder, key_id=recorder.key_id,
                    algorithm=recorder.algorithm, clock=lambda: 1.7e9)  # fmt: skip
    message = Message(channel=Channel.parse("nats://prod/tasks"), value=b"{}")
    await signer.sign_many([message])
    await signer.sign_many([message, message])
    return recorder.signed


async def test_what_an_agent_signs_is_no_text() -> None:
    """It begins with 0x84, which continues a character of UTF-8 and begins none, whatever follows."""
    signed = await signed_by_an_agent(nats_tokens.user())
    assert len(signed) == 2
    for data in signed:
        assert data[0] == 0x84
        with pytest.raises(UnicodeDecodeError):
            data.decode()
    for rest in range(256):
        with pytest.raises(UnicodeDecodeError):
            bytes([0x84, rest]).decode()


async def asked(user: Holder, info: bytes) -> bytes | None:
    """Return what a client of NATS signs for a server that greets it so; None where it does not come to that."""
    answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + info + b"\r\n")
        try:
            line = await reader.readline()
            told = json.loads(line.removeprefix(b"CONNECT ") or b"{}")
            if not answer.done():
                answer.set_result(base64.b64decode(told["sig"]) if "sig" in told else None)
        finally:
            writer.close()

    def sign(nonce: str) -> bytes:  # as nats-py does by itself, with a .creds
        return base64.b64encode(user.private.sign(nonce.encode()))

    async def ignore(_: Exception) -> None: ...

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client()
    try:
        await client.connect(
            f"nats://127.0.0.1:{port}",
            signature_cb=sign,
            user_jwt_cb=lambda: bytearray(b"x"),
            allow_reconnect=False,
            connect_timeout=2,
            error_cb=ignore,
        )
    except (Error, OSError, ValueError):
        pass
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
    return answer.result() if answer.done() else None


def greeting(nonce: str | bytes) -> bytes:
    """Return a server's greeting that asks for a signature of this: as text, or of bytes as they are."""
    info = {"server_id": "x", "version": "2.11", "max_payload": 1 << 20, "auth_required": True, "nonce": "?"}
    before, after = json.dumps(info).split("?")
    text = json.dumps(nonce)[1:-1].encode() if isinstance(nonce, str) else nonce
    return before.encode() + text + after.encode()


def verifies(user: Holder, signature: bytes, data: bytes) -> bool:
    """Return True if it is the user's signature."""
    return SigningKey(user.private).verification_key("nats://A/U").verifies(signature, data)


WAYS: list[Callable[[bytes], str | bytes]] = [
    lambda wanted: wanted,
    lambda wanted: wanted.decode("latin-1"),
    lambda wanted: wanted.decode("utf-8", "surrogateescape"),
    lambda wanted: wanted.decode("utf-8", "replace"),
    lambda wanted: "".join(f"\\u{byte:04x}" for byte in wanted).encode(),
    lambda wanted: "".join(f"\\udc{byte:02x}" for byte in wanted).encode(),
]


async def test_a_server_gets_no_signature_that_a_message_could_bear() -> None:
    """Not even one that asks for exactly what it needs, in any way in which a greeting can say it.

    A server that wants text signed does get that: had what is signed of a message been text, the attack would work.
    """
    user = nats_tokens.user()
    text = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJuYXRzOi8vQS9VIn0"
    signature = await asked(user, greeting(text))
    assert signature is not None
    assert verifies(user, signature, text.encode())
    for wanted in await signed_by_an_agent(user):
        for way in WAYS:
            signature = await asked(user, greeting(way(wanted)))
            assert signature is None or not verifies(user, signature, wanted)
