import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from watchword.encoding import Layout, SignedTree, encode_direct, encode_protected
from watchword.envelope import parse
from watchword.merkle import leaf_of
from watchword_adapters.cli.inspect import fields_of

MESSAGE = '{"channel": "kafka://prod/tasks", "partition": 7, "key": "", "value": "", "headers": [["a,b", ""]]}'


def claimed(
    *,
    issuer: str = PLANNER,
    channel: str = "nats://prod/a",
    covered: tuple[str, ...] = (),
    issued_at: int = 1_800_000_000,
    metadata_digest: bytes | None = None,
    expires_at: int | None = None,
    request_id: bytes | None = None,
    reply_to: str | None = None,
) -> bytes:
    """Return claims."""
    layout = Layout(issuer=issuer, channel=channel, recipient=None, covered=covered, partition=None)
    return layout.claims(bytes(16), issued_at, metadata_digest, None, expires_at, request_id, reply_to)


def forged(**changes: Any) -> str:
    """Return an envelope that nobody signed."""
    protected = encode_protected(-9, b"\xff\x1b[31m")
    return encode_direct(claimed(**changes), protected, bytes(64)).decode()


def test_an_envelope_is_explained_field_by_field(run: Run, config: Path) -> None:
    """Every claim of a message that was just signed is shown, from its JSON line or the bare header alike."""
    signed = run("sign", "--config", str(config), stdin=MESSAGE)
    ended = run("inspect", "--json", stdin=signed.out)
    (fields,) = ended.lines
    assert ended.code == 0
    assert fields["issuer"] == PLANNER
    assert (fields["channel"], fields["partition"], fields["headers"]) == ("kafka://prod/tasks", 7, ["a,b"])
    assert (fields["algorithm"], fields["mode"], fields["version"]) == ("ed25519 (-19)", "direct", 1)
    table = run("inspect", stdin=signed.out).out
    for name in fields.keys() - {"verified"}:
        assert f"│ {name} " in table


def test_nothing_is_said_to_be_verified(run: Run) -> None:
    """A forgery is explained like any other envelope, and both outputs say that nothing was checked."""
    envelope = forged()
    assert run("inspect", "--json", envelope).lines[0]["verified"] is False
    shown = run("inspect", envelope).out
    assert shown.startswith("Not verified: these are claims, which anyone may have written.")
    assert "verified" not in shown.replace("Not verified", "", 1).lower()


def test_what_others_wrote_cannot_move_the_cursor_or_hide(run: Run) -> None:
    """Control and bidirectional characters and markup in any field are shown as what they are (A31)."""
    channel = "nats://prod/a\x1b[2J\r\n\u202eb\x00[red]x[/red]:smile:"
    envelope = forged(channel=channel, reply_to="r\x07", covered=("h\u2066",), metadata_digest=bytes(32))
    for ended in (run("inspect", envelope), run("inspect", "--json", envelope)):
        assert ended.code == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\u2066]", ended.out)
    shown = run("inspect", envelope).out.replace("\n", "").replace(" ", "").replace("│", "")
    assert "[red]" in shown
    assert ":smile:" in shown
    assert run("inspect", "--json", envelope).lines[0]["channel"] == channel


def test_times_are_shown_for_people(run: Run) -> None:
    """Seconds since the epoch are shown with their date, up to the last one that the format allows."""
    shown = run("inspect", forged(issued_at=0, expires_at=(1 << 33) - 1)).out
    assert "1970-01-01" in shown
    assert "2242-03-16" in shown


def test_a_batched_envelope_shows_its_tree() -> None:
    """Size, place and path of the tree are part of what is explained."""
    claims = claimed(request_id=b"q" * 16)
    protected = encode_protected(5, b"k", batched=True)
    fields = fields_of(parse(SignedTree([claims] * 2, protected).values(b"s")[1]))
    assert (fields["mode"], fields["tree_size"], fields["tree_index"]) == ("batched", 2, 1)
    assert fields["tree_path"] == [leaf_of(claims).hex()]
    assert (fields["algorithm"], fields["in_reply_to"]) == ("unknown (5)", "71" * 16)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "é", "\udcff", "a" * 6000])
def test_what_is_no_envelope_is_malformed(run: Run, text: str) -> None:
    """Anything else gets one line and exit code 1."""
    ended = run("inspect", text)
    assert ended.code == 1
    assert ended.out.startswith("malformed: ")
    assert ended.out.count("\n") == 1
    (line,) = run("inspect", "--json", text).lines
    assert line["verified"] is False
    assert line["malformed"]


def test_bytes_that_are_no_text_are_malformed(run: Run) -> None:
    """Binary input is no envelope, and no stack trace."""
    assert run("inspect", stdin=b"\xff\xfe\x00").code == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        (MESSAGE, "0 envelopes in the message"),
        ('{"channel": "nats://p/a", "headers": [["watchword", null]]}', "1 envelopes in the message"),
        ('{"channel": "nats://p/a", "headers": [["watchword", ""], ["Watchword", ""]]}', "2 envelopes in the message"),
    ],
)
def test_a_message_without_exactly_one_envelope_is_said_to_be_so(run: Run, line: str, complaint: str) -> None:
    """There is no choosing among envelopes."""
    ended = run("inspect", line)
    assert ended.code == 2
    assert complaint in ended.err


def test_the_output_is_one_json_object(run: Run) -> None:
    """A program can read what is printed, whatever the names in it."""
    assert json.loads(run("inspect", "--json", forged(issuer="agent://größe")).out)["issuer"] == "agent://größe"


def test_a_copy_is_explained_as_quarantine_show_prints_it(run: Run, config: Path) -> None:
    """'watchword quarantine show ID --json | watchword inspect' needs no editing in between."""
    message = json.loads(run("sign", "--config", str(config), stdin=MESSAGE).out)
    copy = {"verified": False, "copy": "0/1", "size": 0, "reason": "stale", "claimed_principal": PLANNER, **message}
    assert run("inspect", "--json", stdin=json.dumps(copy)).lines[0]["issuer"] == PLANNER
    fault = run("inspect", stdin='{"verified": false, "copy": "0/2", "fault": "not a copy", "size": 3}')
    assert fault.code == 2
    assert fault.err.count("\n") == 1
