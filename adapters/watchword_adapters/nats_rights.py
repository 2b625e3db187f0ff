"""Errors for rights that a NATS user lacks, which nats-py reports only to the error callback."""

from __future__ import annotations

import re
from typing import Any, Final

from nats import errors

from watchword.errors import restored

_REFUSAL: Final = re.compile('permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)


class NotAllowed(errors.TimeoutError):
    """A right that this user lacks; in nats-py a time-out, since a request does not learn of the refusal.

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
    """Return verb ("publish" or "subscription") and subject of a server's refusal; both empty for any other error.

    nats-py lowercases its errors, including the subject.
    """
    found = _REFUSAL.search(told)
    return ("", "") if found is None else (found[1].lower(), found[2].lower())
