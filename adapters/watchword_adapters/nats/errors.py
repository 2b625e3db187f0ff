"""Errors that are both Watchword's and nats-py's, so that programs which catch nats-py's still catch them."""

from __future__ import annotations

import re
from typing import Final

from nats import errors

from watchword import ConfigurationError, SigningError

_BadHeaderError: Final = getattr(errors, "BadHeaderError", errors.Error)
"""The error that nats-py raises for a bad header from 2.16 on; earlier releases do not check headers."""

STORES: Final = '[replay] store = "sqlite", "redis" or "nats_kv"'
"""The setting to write if a shared store is needed."""

_BLANK: Final = re.compile(r"\s")


class BadSubject(SigningError, errors.BadSubjectError):  # noqa: N818 - named like nats-py's, yet distinct from it
    """A subject, or reply subject, that cannot be signed."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class BadPattern(ConfigurationError, errors.BadSubjectError):  # noqa: N818 - as BadSubject
    """A subject or queue group that cannot be subscribed to."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class BadHeader(SigningError, _BadHeaderError):  # type: ignore[misc, valid-type]  # noqa: N818 - as BadSubject
    """A header that cannot be signed; ``key`` is its name if that is at fault, else empty."""

    def __init__(self, text: str, key: str = "") -> None:
        Exception.__init__(self, text)
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])


class PayloadTooLarge(SigningError, errors.MaxPayloadError):  # noqa: N818 - as BadSubject
    """A message that, with headers and envelope, is larger than the server accepts."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class NoTls(ConfigurationError, errors.Error):  # noqa: N818 - as BadSubject
    """A server that was to be reached by TLS but requests none; no login was sent."""

    def __init__(self, address: str) -> None:
        Exception.__init__(self, address)

    def __str__(self) -> str:
        return (
            f"{self.args[0]} requests no TLS, so a login would be sent in the clear: turn TLS on there, or remove tls"
            " here"
        )


class BadName(ConfigurationError, ValueError):  # noqa: N818 - as BadSubject
    """A missing stream or consumer name where nats-py requires one."""


def check_pattern(subject: str) -> None:
    """Raise BadPattern unless ``subject`` can be subscribed to."""
    *first, last = parts = subject.split(".")
    wild = any(">" in part for part in first) or (">" in last and last != ">")
    if _BLANK.search(subject) or not all(parts) or wild or any("*" in part and part != "*" for part in parts):
        raise BadPattern(f"subject {subject!r}: write tokens separated by '.'; any may be '*', and the last one '>'")


def check_queue(queue: str) -> None:
    """Raise BadPattern unless ``queue`` can name a queue group."""
    if _BLANK.search(queue):
        raise BadPattern(f"queue group {queue!r}: write a name without spaces")
