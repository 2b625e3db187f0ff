"""What a NATS server refuses to a user for want of a right, which nats-py tells nobody but the error callback."""

from __future__ import annotations

import re
from typing import Any, Final

from nats import errors

from watchword.errors import restored

_REFUSAL: Final = re.compile('permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)


class NotAllowed(errors.TimeoutError):
    """What this user has no right to; with nats-py it is a time-out, for nothing tells a request of the refusal.

    Each of ``rights`` is "publish to SUBJECT" or "subscribe to SUBJECT".
    """

    def __init__(self, *rights: str) -> None:
        missing = " nor ".join(rights)
        Exception.__init__(self, f"this user may not {missing}; permit it on the server (docs/nats-rights.md)")
        self.rights = rights

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return Exception.__str__(self)


def refused_right(told: str) -> tuple[str, str]:
    """Return verb ("publish" or "subscription") and subject of what a server refused; both empty for another error.

    nats-py gives its errors in lower case, and so the subject.
    """
    found = _REFUSAL.search(told)
    return ("", "") if found is None else (found[1].lower(), found[2].lower())
