"""Errors that are Watchword's and nats-py's at once: what a program catches of nats-py's it catches still."""

from __future__ import annotations

import re
from typing import Final

from nats import errors

from watchword import ConfigurationError, SigningError

_BadHeaderError: Final = getattr(errors, "BadHeaderError", errors.Error)
"""What nats-py raises of a header from 2.16 on; before, it looked at none."""

STORES: Final = '[replay] store = "sqlite", "redis" or "nats_kv"'
"""What to write where a store is needed that several processes share."""

_BLANK: Final = re.compile(r"\s")


class BadSubject(SigningError, errors.BadSubjectError):  # noqa: N818 - as nats-py's, and not to be taken for it
    """A subject, or reply subject, that cannot be signed."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class BadPattern(ConfigurationError, errors.BadSubjectError):  # noqa: N818 - as BadSubject
    """A subject, or a queue group, that one cannot subscribe to."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class BadHeader(SigningError, _BadHeaderError):  # type: ignore[misc, valid-type]  # noqa: N818 - as BadSubject
    """A header that cannot be signed; ``key`` is its name where that is at fault, else empty."""

    def __init__(self, text: str, key: str = "") -> None:
        Exception.__init__(self, text)
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])


class PayloadTooLarge(SigningError, errors.MaxPayloadError):  # noqa: N818 - as BadSubject
    """A message that is larger than the server takes, with its headers and its envelope."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class NoTls(ConfigurationError, errors.Error):  # noqa: N818 - as BadSubject
    """A server that was to be reached by TLS and asks for none; nothing was said to it."""

    def __init__(self, address: str) -> None:
        Exception.__init__(self, address)

    def __str__(self) -> str:
        return (
            f"{self.args[0]} asks for no TLS, so a login would go out in the clear: turn TLS on there, or take tls out"
            " here"
        )


class BadName(ConfigurationError, ValueError):  # noqa: N818 - as BadSubject
    """A stream or consumer that was not named where nats-py asks for a name."""


def check_pattern(subject: str) -> None:
    """Raise nats-py's error unless one can subscribe to ``subject``."""
    *first, last = parts = subject.split(".")
    wild = any(">" in part for part in first) or (">" in last and last != ">")
    if _BLANK.search(subject) or not all(parts) or wild or any("*" in part and part != "*" for part in parts):
        raise BadPattern(f"subject {subject!r}: write tokens parted by '.', of which one may be '*' and the last '>'")


def check_queue(queue: str) -> None:
    """Raise nats-py's error unless ``queue`` can name a queue group."""
    if _BLANK.search(queue):
        raise BadPattern(f"queue group {queue!r}: write a name without blanks")
