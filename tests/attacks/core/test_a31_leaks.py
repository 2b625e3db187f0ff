"""A31: secrets and payloads in logs, errors, repr; labels that an attacker chooses."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.core.world import ALICE_KEY, World, at_once, kafka, nats, press, signed, signer
from watchword import Reason, Rejected, SigningError, Unavailable, Watchword
from watchword.spi import Channel, Message

SECRET = "s3cret"
VALUE, KEY, HEADER = b"value-s3cret", b"key-s3cret", b"header-s3cret"


def _secretive(**fields: Any) -> Message:
    return kafka(value=VALUE, key=KEY, headers=(("x", HEADER),), **fields)


FAULTS: list[Callable[[Message], Message]] = [
    lambda m: replace(m, headers=m.headers[:-1]),
    lambda m: replace(m, headers=(*m.headers, m.headers[-1])),
    lambda m: replace(m, headers=(("watchword", VALUE),)),
    lambda m: replace(m, value=VALUE * 2),
    lambda m: replace(m, key=KEY * 2),
    lambda m: replace(m, partition=5),
    lambda m: replace(m, appended_at=0.0),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a31_rejections_show_no_payload(fault: Callable[[Message], Message]) -> None:
    """Promise: neither the error, its trace, nor the log line holds value, key, header value or envelope."""
    message = fault(signed(_secretive()))
    watchword = Watchword.of(verifier=World().verifier)
    with capture_logs() as logs, pytest.raises(Rejected) as caught:
        at_once(watchword.admit(message))
    shown = (
        "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(logs) + repr(vars(caught.value))
    )
    envelope = signed(_secretive()).headers[-1][1] or b""
    assert SECRET not in shown
    assert envelope[40:80].decode() not in shown
    assert SECRET not in repr(message)


class Leaky:
    """A plug-in whose errors hold secrets."""

    async def find(self, *_: object) -> None:
        """Fail with a secret."""
        raise ConnectionError(f"redis://:{SECRET}@host")

    async def claim(self, *_: object) -> None:
        """Fail with a secret."""
        raise ConnectionError(f"redis://:{SECRET}@host")

    async def sign(self, *_: object) -> bytes:
        """Fail with a secret."""
        raise ConnectionError(f"token {SECRET}")


def test_a31_outages_log_no_plug_ins_text() -> None:
    """Promise: a plug-in's error is named by its class only; its text may hold credentials."""
    keys_down, store_down = World(), World()
    keys_down.keys.source = Leaky()
    store_down.store.store = Leaky()  # type: ignore[assignment] # gives no admission
    for world in (keys_down, store_down):
        with capture_logs() as logs, pytest.raises(Unavailable) as caught:
            at_once(Watchword.of(verifier=world.verifier).admit(press(nats())))
        assert SECRET not in str(caught.value) + repr(caught.value) + repr(logs)
        assert logs[0]["detail"] == "ConnectionError"


def test_a31_private_keys_stay_private() -> None:
    """Promise: no repr of a key or signer, and no error at signing, shows the secret or the payload."""
    pem = ALICE_KEY.to_pem().decode().splitlines()[1]
    assert pem not in repr(ALICE_KEY) + repr(signer()) + repr(ALICE_KEY.__dict__)
    with pytest.raises(SigningError) as caught:
        signed(nats(value=VALUE, headers=(("x", HEADER + b"\n"),)))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a31_labels_are_bounded() -> None:
    """Promise: whatever attackers send, the counts' labels are reasons, and a log line's fields are capped."""
    watchword = Watchword.of(verifier=World().verifier)
    with capture_logs() as logs:
        for number in range(300):
            name = f"agent://{number}/" + "x" * 200
            changes: tuple[dict[str, Any], ...] = ({"c1": name}, {"c": "nats://prod/" + "y" * 2000}, {"c3": name})
            for change in changes:
                with pytest.raises(Rejected):
                    at_once(watchword.admit(press(nats(), **change)))
    assert set(watchword.audit.counts) <= {*map(str, Reason), "delivered", "unavailable"}
    assert len(logs) < 50
    for line in logs:
        assert all(len(str(value)) <= 200 for value in line.values())


def test_a31_names_of_attackers_choice_do_not_steer_a_terminal() -> None:
    """Promise: a subject or principal with escape sequences is shown escaped and capped by the plainest log set-up."""
    watchword = Watchword.of(verifier=World(principal=None).verifier)
    subject = replace(nats(), channel=Channel("nats", "prod", "t.\x1b]0;owned\x07" + "A" * 4000))
    named = press(nats(), c1="agent://a\x9b2J\u202eb")
    with capture_logs() as logs:
        for message in (subject, named):
            with pytest.raises(Rejected):
                at_once(watchword.admit(message))
    assert len(logs) == 2
    assert logs[0]["channel"].startswith(r"nats://prod/t.\x1b]0;owned\x07AAA")
    assert logs[1]["claimed_principal"] == r"agent://a\x9b2J\u202eb"
    for value in (value for line in logs for value in line.values() if isinstance(value, str)):
        assert value.isprintable()
        assert len(value) < 600
