"""``watchword inspect``: shows what an envelope claims, field by field, without verifying it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from watchword import Algorithm, ConfigurationError, Rejected
from watchword.envelope import VERSION, is_envelope_name, parse
from watchword.strict import json_object
from watchword.wire_json import message_from_members
from watchword_adapters.cli import OK, REJECTED
from watchword_adapters.cli.terminal import escaped, standard_input
from watchword_adapters.regular_file import without_mark

if TYPE_CHECKING:
    from watchword.envelope import Envelope
    from watchword.spi import Message

NOT_VERIFIED: Final = "Not verified: these are claims, which anyone may have written."
MAX_INPUT: Final = 64 * 1024 * 1024

_MEANINGS: Final = {
    "version": "of the envelope",
    "issuer": "iss: who claims to have written it",
    "recipient": "aud: whom it is meant for",
    "expires_at": "exp: from when on it is void",
    "issued_at": "iat: when it claims to be signed",
    "id": "cti: unique per message",
    "channel": "c: the only channel where it is valid",
    "headers": "h: names of the covered headers",
    "metadata_digest": "m: SHA-256 of key and covered headers",
    "partition": "p: Kafka partition",
    "in_reply_to": "q: id of the request it answers",
    "reply_to": "r: subject to answer on",
    "value_digest": "v: SHA-256 of the value",
    "algorithm": "COSE algorithm; the key decides",
    "key_id": "kid: which key of the issuer",
    "mode": "signed alone, or in a batch",
    "tree_size": "messages under the signature",
    "tree_index": "place of this one among them",
    "tree_path": "SHA-256 hashes up to the root",
    "signature": "over claims or root",
}


def run_inspect(text: str | None, *, as_json: bool) -> int:
    """Print the claims of ``text`` (standard input if None); return the exit code."""
    if text is None:
        text = without_mark(standard_input().read(MAX_INPUT)).decode(errors="backslashreplace")
    header = _header(text.strip())
    try:
        fields = fields_of(parse(header))
    except Rejected as rejected:
        if as_json:
            sys.stdout.write(json.dumps({"verified": False, "malformed": rejected.detail}) + "\n")
        else:
            sys.stdout.write(f"malformed: {escaped(rejected.detail)}\n")
        return REJECTED
    if as_json:
        sys.stdout.write(json.dumps({"verified": False, **fields}) + "\n")
    else:
        _print(fields)
    return OK


def fields_of(envelope: Envelope) -> dict[str, object]:
    """Return an envelope's claims by name, without absent ones; digests, ids and signature in hex."""
    common, batched = envelope.common, envelope.size > 0
    fields: dict[str, object] = {
        "version": VERSION,
        "issuer": common.issuer,
        "recipient": common.recipient,
        "channel": common.channel,
        "partition": common.partition,
        "reply_to": common.reply_to,
        "in_reply_to": _hex(common.request_id),
        "id": envelope.id.hex(),
        "issued_at": envelope.issued_at,
        "expires_at": common.expires_at,
        "headers": list(common.covered) or None,
        "metadata_digest": _hex(envelope.metadata_digest),
        "value_digest": _hex(envelope.value_digest),
        "algorithm": _algorithm(common.algorithm),
        "key_id": common.key_id.decode(errors="backslashreplace"),
        "mode": "batched" if batched else "direct",
        "tree_size": envelope.size if batched else None,
        "tree_index": envelope.index if batched else None,
        "tree_path": [node.hex() for node in envelope.path] if batched else None,
        "signature": envelope.signature.hex(),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _header(text: str) -> bytes:
    """Return the envelope in the text: the text itself, or the header of a message or a copy in JSON."""
    if not text.startswith("{"):
        return text.encode(errors="backslashreplace")
    try:
        members = json_object(text)
        if "copy" in members:  # as 'quarantine show --json' prints it
            members = {name: members.get(name) for name in ("channel", "headers")}
        message: Message = message_from_members(members)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    found = [value for name, value in message.headers if is_envelope_name(name)]
    if len(found) != 1 or found[0] is None:
        raise ConfigurationError(f"{len(found)} envelopes in the message: it must have one header named watchword")
    return found[0]


def _print(fields: dict[str, object]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed for a table
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(title=NOT_VERIFIED, title_justify="left")
    table.add_column("field", no_wrap=True)
    table.add_column("claimed value", overflow="fold", ratio=1)
    table.add_column("meaning", overflow="fold", max_width=24)
    for name, value in fields.items():
        # Text, not str: untrusted text must not be parsed as markup.
        table.add_row(name, Text(escaped(_shown(name, value))), _MEANINGS[name])
    Console(file=sys.stdout, highlight=False, emoji=False).print(table)


def _shown(name: str, value: object) -> str:
    if name in {"issued_at", "expires_at"} and isinstance(value, int):
        return f"{value} ({datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC)"
    # JSON shows where a name ends: it may contain a comma.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def _algorithm(identifier: int) -> str:
    known = {int(algorithm): algorithm.label for algorithm in Algorithm}
    return f"{known.get(identifier, 'unknown')} ({identifier})"


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()
