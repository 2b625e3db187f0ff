"""Watchword's exceptions: how a message ends that is not delivered, and why; errors of set-up and of signing."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeVar

MAX_CLAIMED: Final = 128
"""Characters of an unverified value that an error or a log line may carry."""


_Error = TypeVar("_Error", bound=Exception)


class Reason(StrEnum):
    """Why a message was rejected: stable names, in the order of the verifier's checks."""

    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    WRONG_CHANNEL = "wrong_channel"
    WRONG_PARTITION = "wrong_partition"
    WRONG_REPLY_TO = "wrong_reply_to"
    WRONG_RECIPIENT = "wrong_recipient"
    WRONG_REQUEST = "wrong_request"
    WRONG_DELIVERY = "wrong_delivery"
    STALE = "stale"
    FROM_FUTURE = "from_future"
    EXPIRED = "expired"
    UNKNOWN_KEY = "unknown_key"
    WRONG_PRINCIPAL = "wrong_principal"
    KEY_NOT_VALID = "key_not_valid"
    KEY_REVOKED = "key_revoked"
    BAD_SIGNATURE = "bad_signature"
    ALTERED = "altered"
    REPLAYED = "replayed"
    OVER_QUOTA = "over_quota"
    NOT_PERMITTED = "not_permitted"
    RATE_LIMITED = "rate_limited"
    CONTAINED = "contained"
    NOT_TRUSTED = "not_trusted"


class WatchwordError(Exception):
    """The base of all errors that Watchword raises on purpose; they can be pickled, for worker processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), self.args, self.__dict__)


def restored(cls: type[_Error], args: tuple[object, ...], state: dict[str, object]) -> _Error:
    """Rebuild a pickled error as it was; its constructor would take the text for another argument."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(WatchwordError):
    """The configuration is wrong; the text says what to write instead."""


class SigningError(WatchwordError):
    """This message cannot be signed (the bus would change it, or a limit is exceeded); it was not sent."""


class Rejected(WatchwordError):  # noqa: N818 - an ending, not a mistake of the caller
    """The message is at fault and the verdict is final: audit it and continue with the next.

    It has no payload. ``claimed_principal`` is the unverified message's claim, capped to ``MAX_CLAIMED`` characters;
    ``channel`` is where the message was found.
    """

    def __init__(
        self, reason: Reason, detail: str = "", *, channel: str = "", claimed_principal: str | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.channel = channel
        self.claimed_principal = None if claimed_principal is None else claimed_principal[:MAX_CLAIMED]
        super().__init__(f"{reason}: {detail}" if detail else str(reason))


class Unavailable(WatchwordError):  # noqa: N818 - an ending, not a mistake of the caller
    """The message could not be judged (key source or replay store down) and must be offered again.

    ``what`` names the part that failed, such as ``keys``, ``replay`` or ``signing``.
    """

    def __init__(self, what: str, detail: str = "") -> None:
        self.what = what
        self.detail = detail
        super().__init__(f"{what} unavailable: {detail}" if detail else f"{what} unavailable")


class Shed(Unavailable):
    """The key was not looked up, because too many look-ups are under way or have failed; others may be judged."""

    def __init__(self, detail: str) -> None:
        super().__init__("keys", detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return Unavailable, (self.what, self.detail)


class Forgotten(Unavailable):
    """Log time has passed the message, so its id may be forgotten: read the memory again, and judge it then."""

    def __init__(self) -> None:
        super().__init__("replay", "redelivered after log time passed it, so its id may be forgotten")

    def __reduce__(self) -> tuple[Any, ...]:
        return Unavailable, (self.what, self.detail)


class Pending(Unavailable):
    """The key is still being looked up: others may be judged meanwhile, and this message once its key is found.

    ``found`` is for the caller: the key source that raises this sets it, so that the caller can wait for the look-up.
    """

    def __init__(self, found: object) -> None:
        self.found = found
        super().__init__("keys", "the key is still being looked up")

    def __reduce__(self) -> tuple[Any, ...]:
        return Unavailable, (self.what, self.detail)  # another process cannot wait for ``found``
