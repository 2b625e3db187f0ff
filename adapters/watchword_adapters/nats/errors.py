"""Errors that are Watchword's and nats-py's at once: what a program catches of nats-py's it catches still."""

from __future__ import annotations

from nats import errors

from watchword import ConfigurationError, SigningError


class BadSubject(SigningError, errors.BadSubjectError):  # noqa: N818 - as nats-py's, and not to be taken for it
    """A subject, or reply subject, that cannot be signed."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class BadHeader(SigningError, errors.BadHeaderError):  # noqa: N818 - as BadSubject
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


class BadName(ConfigurationError, ValueError):  # noqa: N818 - as BadSubject
    """A stream or consumer that was not named where nats-py asks for a name."""
