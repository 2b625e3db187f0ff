"""What comes in, before the client looks at it: header blocks as they are, status lines only if the server's."""

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
    """Looks at what comes in for one client."""

    def __init__(self, watchword: Watchword, requests: Requests) -> None:
        self._watchword = watchword
        self._requests = requests

    def broken(self, subject: bytes, error: Exception) -> None:
        """Account for a message that the client could not make sense of."""
        where = f"nats://{self._watchword.realm}/{_text(subject)}"
        self._watchword.audit.refused_raw(Rejected(Reason.MALFORMED, type(error).__name__), channel=where)

    def status_line(
        self, block: HeaderBlock, subject: bytes, reply: bytes, data: bytes, *, of_stream: bool
    ) -> HeaderBlock:
        """Keep a status line only where it can be the server's; ``of_stream`` says that a push consumer gets it."""
        if data or reply.startswith(_ACK):
            return block.refused("status line on a message")
        if block.status == NO_RESPONDERS and self._requests.was_answered(_text(subject)):
            return block.refused("no responders, said after the server had answered")
        if block.status == CONTROL and of_stream:
            # The base publishes to whatever subject a flow control message names: we would sign for an attacker.
            named = (_text(reply), block.get(_STALLED, ""))
            if any(name and not name.startswith(_FLOW_CONTROL) for name in named):
                return block.refused("flow control for another subject")
        return block


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
