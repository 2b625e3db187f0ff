"""Checks incoming messages before the client sees them: accepts status lines only if they can be the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword import Reason, Rejected
from watchword_adapters.nats.headers import CONTROL, NO_RESPONDERS, HeaderBlock

if TYPE_CHECKING:
    from watchword import Watchword
    from watchword_adapters.nats.requests import Requests

_ACK: Final = b"$JS.ACK."
_FLOW_CONTROL: Final = "$JS.FC."
_STALLED: Final = "Nats-Consumer-Stalled"


class Inbox:
    """Checks the incoming messages of one client."""

    def __init__(self, watchword: Watchword, requests: Requests) -> None:
        self._watchword = watchword
        self._requests = requests

    def broken(self, subject: bytes, error: Exception) -> None:
        """Audit a message that the client could not parse."""
        where = f"nats://{self._watchword.realm}/{_text(subject)}"
        self._watchword.audit.refused_raw(Rejected(Reason.MALFORMED, type(error).__name__), channel=where)

    def status_line(
        self, block: HeaderBlock, subject: bytes, reply: bytes, data: bytes, *, of_stream: bool
    ) -> HeaderBlock:
        """Accept a status line only if it can be the server's; ``of_stream`` marks those for a push consumer."""
        if data or reply.startswith(_ACK):
            return block.refused("status line on a message")
        if block.status == NO_RESPONDERS and self._requests.was_answered(_text(subject)):
            return block.refused("no responders, after the server had answered")
        if block.status == CONTROL and of_stream:
            # The base publishes to whatever subject a flow control message names: we would sign for an attacker.
            named = (_text(reply), block.get(_STALLED, ""))
            if any(name and not name.startswith(_FLOW_CONTROL) for name in named):
                return block.refused("flow control for another subject")
        return block


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
