import codecs
import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.cli.conftest import PLANNER, Run
from watchword import Reason
from watchword.spi import Admission
from watchword_adapters.cli import lines as module
from watchword_adapters.contract.replay_store import make_claim

KAFKA = {
    "channel": "kafka://prod/tasks",
    "partition": 0,
    "key": "azE=",
    "value": "e30=",
    "headers": [["content-type", "YXBwbGljYXRpb24vanNvbg=="]],
    "reply_to": None,
}
NATS = {"channel": "nats://prod/tasks.new", "value": "e30="}


def text(*messages: object) -> str:
    """Return messages one a line."""
    return "".join(json.dumps(message) + "\n" for message in messages)


def test_what_is_signed_is_the_message_with_one_more_header(run: Run, config: Path) -> None:
    """Signing leaves every field as it was and adds the envelope after the other headers."""
    ended = run("sign", "--config", str(config), stdin=text(KAFKA, NATS))
    kafka, nats = ended.lines
    assert (ended.code, ended.err) == (0, "")
    added = kafka["headers"][-1:]  # type: ignore[index]  # a list, or the test fails
    assert added[0][0] == "watchword"
    assert kafka == {**KAFKA, "headers": [*KAFKA["headers"], *added]}  # type: ignore[misc]  # as above
    assert [name for name, _ in nats["headers"]] == ["watchword"]  # type: ignore[attr-defined]  # as above


def test_what_was_signed_verifies_in_the_documented_shape(run: Run, config: Path) -> None:
    """A verdict holds exactly verdict, principal, key id, id and redelivered; all verified is exit code 0."""
    signed = run("sign", "--config", str(config), stdin=text(KAFKA)).out
    ended = run("verify", "--config", str(config), stdin=signed)
    jwk = json.loads((config.parent / "planner.jwk").read_text())
    (verdict,) = ended.lines
    assert len(str(verdict.pop("id"))) == 32
    assert verdict == {"verdict": "verified", "principal": PLANNER, "key_id": jwk["kid"], "redelivered": False}
    assert (ended.code, ended.err) == (0, "")


def test_one_replay_window_serves_the_run(run: Run, config: Path) -> None:
    """The same id at the same offset is a redelivery; elsewhere, or where a line gives no offset, a replay."""
    (signed,) = run("sign", "--config", str(config), stdin=text(KAFKA)).lines
    at = [{**signed, "offset": offset} for offset in (12, 12, 13)]
    ended = run("verify", "--config", str(config), stdin=text(*at, signed, signed))
    replayed = {"verdict": "rejected", "reason": "replayed"}
    assert [line.get("redelivered") for line in ended.lines[:2]] == [False, True]
    assert ended.lines[2:] == [replayed] * 3
    assert ended.code == 1
    assert run("verify", "--config", str(config), stdin=text(signed)).code == 0


def test_nothing_is_forgotten_or_too_old_for_the_window_during_a_run(run: Run, config: Path) -> None:
    """An hour of log time between two sightings neither lets a replay in nor raises a floor."""
    first, second, marker = run("sign", "--config", str(config), stdin=text(NATS, NATS, NATS)).lines
    later = {**marker, "offset": 3, "appended_at": time.time() + 360}
    start = {**first, "offset": 1, "appended_at": time.time()}
    again = {**first, "offset": 4, "appended_at": time.time()}
    late = {**second, "offset": 5, "appended_at": time.time()}
    policy = '[policy]\nmax_age = "10m"\n[replay]\nmax_lag = "1s"\n'
    config.write_text(config.read_text() + policy)
    ended = run("verify", "--config", str(config), stdin=text(start, later, again, late))
    assert [line.get("reason") for line in ended.lines] == [None, None, "replayed", None]


def test_commands_open_no_port(run: Run, config: Path) -> None:
    """A command beside a running agent, by the same settings, does not fight it for the port of its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(f'{config.read_text()}[telemetry]\nprometheus = "127.0.0.1:{port}"\n')
        (signed,) = run("sign", "--config", str(config), stdin=text(NATS)).lines
        assert run("verify", "--config", str(config), stdin=text(signed)).code == 0


async def test_what_awaits_an_acknowledgement_is_not_forgotten_either() -> None:
    """A message that a consumer of a stream delivered stays known for the whole run, whatever time passes in it."""
    window = module.OneWindow()
    first = replace(make_claim(1, offset=1), unacked=True)
    assert await window.claim(first) is Admission.FIRST
    much_later = make_claim(2, offset=2, at=first.keep_until + 1)
    assert await window.claim(much_later) is Admission.FIRST
    assert await window.claim(replace(first, place=None)) is Admission.REPLAYED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"headers": []}, Reason.UNSIGNED),
        ({"headers": [["watchword", "/////w=="]]}, Reason.MALFORMED),
        ({"headers": [["watchword", None]]}, Reason.MALFORMED),
        ({"channel": "kafka://prod/other"}, Reason.WRONG_CHANNEL),
        ({"channel": "kafka://lab/tasks"}, Reason.WRONG_CHANNEL),
        ({"partition": 1}, Reason.WRONG_PARTITION),
        ({"appended_at": 1}, Reason.FROM_FUTURE),
        ({"appended_at": 8_000_000_000}, Reason.STALE),
        ({"value": None}, Reason.ALTERED),
        ({"key": ""}, Reason.ALTERED),
    ],
)
def test_a_hostile_message_is_a_verdict_and_the_run_goes_on(
    run: Run, config: Path, change: dict[str, object], reason: Reason
) -> None:
    """Whatever a message holds it gets its reason, and those after it are judged."""
    (signed,) = run("sign", "--config", str(config), stdin=text(KAFKA)).lines
    ended = run("verify", "--config", str(config), stdin=text({**signed, **change}, signed))
    assert ended.lines[0] == {"verdict": "rejected", "reason": reason}
    assert ended.lines[1]["verdict"] == "verified"
    assert ended.code == 1


def test_observing_gives_the_true_verdict(run: Run, config: Path) -> None:
    """The mode of the settings does not turn a rejection into anything else here."""
    config.write_text(config.read_text() + '[policy]\nmode = "observe"\n')
    ended = run("verify", "--config", str(config), stdin=text(NATS))
    assert ended.lines == [{"verdict": "rejected", "reason": "unsigned"}]
    assert ended.code == 1


def test_what_cannot_be_judged_is_neither_verified_nor_rejected(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay store that fails makes the message unavailable, with an exit code of its own, and the run continues."""
    (signed,) = run("sign", "--config", str(config), stdin=text(NATS)).lines

    async def down(_self: object, _claim: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(module.OneWindow, "claim", down)
    ended = run("verify", "--config", str(config), stdin=text(signed, NATS))
    unavailable = {"verdict": "unavailable", "what": "replay"}
    assert ended.lines == [unavailable, {"verdict": "rejected", "reason": "unsigned"}]
    assert ended.code == 3


def test_a_signer_that_is_down_is_an_exit_code_of_its_own(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signing that may succeed later is distinguished from signing that never will by its exit code."""

    async def down(_self: object, _data: bytes) -> bytes:
        raise ConnectionError

    monkeypatch.setattr("watchword.SigningKey.sign", down)
    ended = run("sign", "--config", str(config), stdin=text(NATS))
    assert (ended.code, ended.err) == (3, "watchword: signing unavailable: ConnectionError\n")


def test_a_recipient_an_expiry_and_a_request_are_signed(run: Run, config: Path) -> None:
    """A line may address its message, bound its life and answer a request; verifying takes it as signed."""
    soon = int(time.time()) + 60
    request = "00" * 16
    lines = text(
        {**NATS, "recipient": PLANNER, "expires_at": soon},
        {**NATS, "recipient": "agent://other", "expires_at": None, "in_reply_to": None},
        {**NATS, "in_reply_to": request},
    )
    signed = run("sign", "--config", str(config), stdin=lines)
    assert not {"recipient", "expires_at", "in_reply_to"} & signed.lines[0].keys()
    verdicts = run("verify", "--config", str(config), stdin=signed.out).lines
    assert [line.get("reason") for line in verdicts] == [None, "wrong_recipient", "wrong_request"]
    fields = run("inspect", "--json", json.dumps(signed.lines[0])).lines[0]
    assert (fields["recipient"], fields["expires_at"]) == (PLANNER, soon)
    assert run("inspect", "--json", json.dumps(signed.lines[2])).lines[0]["in_reply_to"] == request


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ('{"channel": "kafka://prod/a", "valeu": null}', "unknown field 'valeu'"),
        ('{"channel": "kafka://prod/a", "recipient": 5}', "recipient: write a principal"),
        ('{"channel": "kafka://prod/a", "recipient": ""}', "is not a principal"),
        ('{"channel": "kafka://prod/a", "expires_at": 5.5}', "expires_at: write whole seconds"),
        ('{"channel": "kafka://prod/a", "expires_at": true}', "expires_at: write whole seconds"),
        ('{"channel": "kafka://prod/a", "expires_at": -1}', "expires_at -1: write whole seconds"),
        ('{"channel": "kafka://prod/a", "expires_at": 1}', "so no reader would accept it"),
        ('{"channel": "kafka://prod/a", "in_reply_to": "0G"}', "in_reply_to: write the 32 lower-case hex digits"),
        ('{"channel": "kafka://prod/a", "in_reply_to": "00"}', "in_reply_to: write the 32 lower-case hex digits"),
        ('{"channel": "kafka://prod/a", "in_reply_to": 5}', "in_reply_to: write the 32 lower-case hex digits"),
        ('{"channel": "kafka://lab/a"}', "this signer signs for realm 'prod'"),
        ('{"channel": "nats://prod/a.>"}', "no wildcard"),
        ('{"channel": "kafka://prod/a", "headers": [["Watchword", null]]}', "has an envelope already"),
    ],
)
def test_a_line_that_cannot_be_signed_is_named(run: Run, config: Path, line: str, complaint: str) -> None:
    """The error names the line and the mistake; lines signed before it are printed, and no line after it is signed."""
    ended = run("sign", "--config", str(config), stdin=text(NATS) + "\n" + line + "\n" + text(NATS))
    assert ended.code == 2
    assert len(ended.lines) == 1
    assert ended.err.startswith("watchword: line 3: ")
    assert complaint in ended.err
    assert ended.err.count("\n") == 1


def test_a_line_that_is_no_message_stops_verifying(run: Run, config: Path) -> None:
    """A line that is malformed gets no verdict: an error names the line, and the run ends."""
    ended = run("verify", "--config", str(config), stdin=text(NATS, {**NATS, "recipient": "a"}, NATS))
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert ended.err.startswith("watchword: line 2: unknown field 'recipient'")


def test_bytes_that_are_no_text_are_named(run: Run, config: Path) -> None:
    """Input of another encoding is one line, not a stack trace."""
    assert run("verify", "--config", str(config), stdin=b"\xff\xfe\n").err == "watchword: line 1: not UTF-8\n"


def test_an_endless_line_is_refused(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input without line ends does not fill the memory."""
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 100)
    ended = run("verify", "--config", str(config), stdin=b" " * 1000)
    assert (ended.code, ended.err) == (2, "watchword: line 1: longer than 100 bytes\n")


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_no_input_is_no_error(run: Run, config: Path, command: str) -> None:
    """An empty input gives an empty output; a last line needs no line end."""
    assert run(command, "--config", str(config)) == run(command, "--config", str(config), stdin="\n \n")
    assert run("sign", "--config", str(config), stdin=text(NATS).strip()).code == 0


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_wrong_settings_are_one_line_and_exit_code_2(run: Run, config: Path, command: str) -> None:
    """A mistake in the settings is reported before any input is read."""
    config.write_text(config.read_text().replace("realm", "relm"))
    ended = run(command, "--config", str(config), stdin=text(NATS))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f'watchword: {config}: relm: unknown; did you mean "realm"?\n'


def test_a_pure_consumer_cannot_sign(run: Run, config: Path) -> None:
    """Signing without a signer says what to add."""
    config.write_text(config.read_text().replace('[signer]\nkey = "planner.pem"\n', ""))
    ended = run("sign", "--config", str(config), stdin=text(NATS))
    assert ended.code == 2
    assert "this process only verifies: add [signer]" in ended.err


def test_warnings_stay_off_standard_output(run: Run, config: Path) -> None:
    """A reader of the verdicts reads nothing else."""
    (config.parent / "planner.pem").chmod(0o644)
    ended = run("verify", "--config", str(config), stdin=text(NATS))
    assert len(ended.lines) == 1
    assert ended.err.startswith("watchword: warning: signer.key_readable_by_others path=")


def test_verifying_without_a_key_source_is_refused(run: Run, config: Path) -> None:
    """Nothing could verify, whatever is read; signing needs none."""
    config.write_text(config.read_text().partition("[[keys]]")[0])
    assert run("sign", "--config", str(config), stdin=text(NATS)).code == 0
    ended = run("verify", "--config", str(config), stdin=text(NATS))
    assert (ended.code, ended.out) == (2, "")
    assert "no key source" in ended.err


def test_a_byte_order_mark_before_the_first_line_is_no_mistake(run: Run, config: Path) -> None:
    """What was saved by an editor of Windows is read; elsewhere the mark is a mistake of the input."""
    line = b'{"channel": "nats://prod/a", "value": ""}\n'
    ended = run("verify", "-c", str(config), stdin=codecs.BOM_UTF8 + line)
    assert ended.lines == [{"verdict": "rejected", "reason": "unsigned"}]
    (signed,) = run("sign", "-c", str(config), stdin=codecs.BOM_UTF8 + line).lines
    assert run("inspect", "--json", stdin=codecs.BOM_UTF8 + json.dumps(signed).encode()).code == 0
    assert run("verify", "-c", str(config), stdin=line + codecs.BOM_UTF8 + line).code == 2
