"""A key source of your own, without a broker: an object with one method, which finds keys in a table.

Messages of an agent whose key is not in the table are rejected. In settings such a source has a name, as
``docs/keys/own.md`` shows; here it is passed to the agent directly.

    $ python examples/own_key_source.py
    agent://acme/planner says b'scale up'
    agent://acme/stranger is unknown_key
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from watchword import Rejected, SigningKey, VerificationKey, Watchword
from watchword.spi import Channel, Message

LAYOUT = "CREATE TABLE keys (principal TEXT, kid BLOB, public BLOB, begins INT, ends INT, revoked INT)"


class TableKeys:
    """Finds keys in a SQLite table that another program fills."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """Return the principal's key of this id, else another's of this id, else None."""
        return await asyncio.to_thread(self._find, principal, key_id)  # a slow disk must not block the event loop

    def _find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", timeout=2, uri=True)) as table:
            ask = "SELECT public, principal, begins, ends, revoked FROM keys WHERE kid = ? ORDER BY principal <> ?"
            row = table.execute(ask, (key_id, principal)).fetchone()
        if row is None:
            return None  # no such key; any error is raised instead, so nothing is delivered
        names = ("principal", "not_before", "not_after", "revoked_at")
        return VerificationKey.from_public_key(
            load_der_public_key(row[0]), key_id=key_id, **dict(zip(names, row[1:], strict=True))
        )


def put(path: Path, key: VerificationKey) -> None:
    """Write a key into the table, as your directory of agents does."""
    public = key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    row = (key.principal, key.key_id, public, key.not_before, key.not_after, key.revoked_at)
    with closing(sqlite3.connect(path)) as table, table:
        table.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)", row)


async def main(path: Path) -> None:
    """Verify a message of the planner, whose key is in the table, and one of a stranger, whose key is not."""
    with closing(sqlite3.connect(path)) as table:
        table.execute(LAYOUT)
    keys = {name: SigningKey.generate() for name in ("planner", "stranger")}
    put(path, keys["planner"].verification_key("agent://acme/planner"))
    reader = Watchword(realm="prod", keys=TableKeys(path))
    for name, key in keys.items():
        message = Message(channel=Channel("nats", "prod", "tasks"), value=b"scale up")
        agent = Watchword(realm="prod", principal=f"agent://acme/{name}", key=key)
        signed = await agent.signer.sign(message)
        try:
            heard = await reader.verifier.verify(
                Message(channel=message.channel, value=message.value, headers=(signed.header,))
            )
            print(f"{heard.principal} says {heard.value!r}")
        except Rejected as verdict:
            print(f"{verdict.claimed_principal} is {verdict.reason}")


if __name__ == "__main__":
    with TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory) / "agents.db"))
