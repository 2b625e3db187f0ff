"""A PKCS#11 library in this process: one thread calls it for all signers, and each token has one session."""

from __future__ import annotations

import hmac
import os
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import exceptions as errors

from watchword import ConfigurationError
from watchword_adapters.signers.worker import Workers

if TYPE_CHECKING:
    from pkcs11.types import Session, Token

    from watchword_adapters.signers.secret import Secret

PAUSE: Final = 5.0
"""Minimum seconds between two initializations of a library, each of which ends the sessions of all its tokens."""


class NoTokenError(ConfigurationError):
    """The library has no token with this label, at least now."""


class Module:
    """A library, by its path. Except for ``workers``, use it only on the one thread that calls the library.

    The standard allows one instance of a library in a process. python-pkcs11 promises it that threads do not call it
    concurrently, and a login applies to all sessions of a token.
    """

    def __init__(self, path: str) -> None:
        self.workers: Final = Workers()
        self._path = path
        self._pid = os.getpid()
        self._sessions: dict[str, Session] = {}
        self._salt = os.urandom(32)
        self._pins: dict[str, tuple[bytes, Secret]] = {}
        self._refused: dict[str, bytes] = {}
        self._next_start = 0.0

    def session(self, token: str, pin: Secret) -> Session:
        """Return the session of the token with this label; ConfigurationError, or an error of the library."""
        if self._pid != os.getpid():
            self._start_in_fork()
        session = self._sessions.get(token)
        if session is None:
            session = self._opened(token, pin, rw=False)
        return session

    def try_pin(self, token: str, pin: Secret) -> None:
        """Log in with a PIN now if the open session used another one; ConfigurationError if the token refuses it.

        In that case, the old session is opened again. If its PIN has been replaced, that would be impossible; then the
        new one is tried only when the next session is opened.
        """
        tried, (mark, before) = self._mark(pin.read()), self._pins.get(token, (b"", pin))
        if token not in self._sessions or tried == mark:
            return
        self._not_refused_before(token, tried)
        if self._mark(before.read()) != mark:
            return
        self.close(token)
        try:
            self._opened(token, pin, rw=False)
        except (ConfigurationError, errors.PKCS11Error):
            with suppress(ConfigurationError, errors.PKCS11Error):
                self._opened(token, before, rw=False)
            raise

    def reinitialize(self) -> bool:
        """Finalize the library, so that its next use initializes it; return False if that was within PAUSE.

        Some libraries look for tokens, and connect to the HSM, only when they are initialized (PKCS#11 3.0, 5.4).
        """
        if monotonic() < self._next_start:
            return False
        self._next_start = monotonic() + PAUSE
        for token in tuple(self._sessions):
            self.close(token)
        self._finalize()
        return True

    def close(self, token: str) -> None:
        """Close a token's session, if it can still be closed; the next call opens another."""
        session = self._sessions.pop(token, None)
        if session is not None:
            with suppress(errors.PKCS11Error):
                session.close()

    def writable(self, token: str, pin: Secret) -> Session:
        """Return a session in which keys can be made; it is the token's session from now on."""
        self.close(token)
        return self._opened(token, pin, rw=True)

    def _start_in_fork(self) -> None:
        """Start over in a forked child: the sessions belong to the parent, and so does the library's state."""
        self._pid = os.getpid()
        self._sessions.clear()
        self._finalize()

    def _finalize(self) -> None:
        with suppress(errors.PKCS11Error, ConfigurationError):  # it may have noticed a fork, or a lost token, itself
            self._library().finalize()

    def _library(self) -> Any:
        try:
            return pkcs11.lib(self._path)
        except errors.PKCS11Error as error:
            if Path(self._path).is_file():
                failed = f"it cannot be initialized ({type(error).__name__}): check its configuration and its tokens"
                told = " ".join(str(error).split()) or failed  # only a file that is not a library causes a text
                raise ConfigurationError(f"module {self._path}: {told}") from None
            raise ConfigurationError(
                f"module {self._path}: no such file; install the token's PKCS#11 library"
            ) from None

    def _opened(self, label: str, pin: Secret, *, rw: bool) -> Session:
        """Open the token's session and log in. A refused PIN is not tried again: tokens lock after a few."""
        text = pin.read()
        mark = self._mark(text)
        self._not_refused_before(label, mark)
        token = self._token(label)
        try:
            session = token.open(rw=rw, user_pin=text)
        except errors.UserAlreadyLoggedIn:  # by the application, which uses the library itself
            session = token.open(rw=rw)
        except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange):
            self._refused[label] = mark
            raise ConfigurationError("the token refuses the PIN") from None
        except (errors.PinLocked, errors.PinExpired, errors.UserPinNotInitialized) as error:
            raise ConfigurationError(f"{type(error).__name__}: the token's security officer sets the PIN") from None
        self._sessions[label], self._pins[label] = session, (mark, pin)
        return session

    def _mark(self, pin: str) -> bytes:
        """Return a digest that tells PINs apart without revealing them."""
        return hmac.digest(self._salt, pin.encode(), "sha256")

    def _not_refused_before(self, label: str, mark: bytes) -> None:
        if self._refused.get(label) == mark:
            raise ConfigurationError("the token refused this PIN before, so it is not tried again: write the right one")

    def _token(self, label: str) -> Token:
        try:
            token: Token = self._library().get_token(token_label=label)
        except errors.NoSuchToken:
            raise NoTokenError(f"the module has no token labelled {label!r}") from None
        except errors.MultipleTokensReturned:
            raise ConfigurationError(f"several tokens are labelled {label!r}: give each a label of its own") from None
        return token


# A process can have only one instance of a library, so its users have to share the thread that calls it.
_MODULES: Final[dict[str, Module]] = {}
_ONE_AT_A_TIME: Final = threading.Lock()


def module(path: str) -> Module:
    """Return the library at ``path``; it is the same for all paths and links to one file."""
    with _ONE_AT_A_TIME:
        return _MODULES.setdefault(str(Path(path).resolve()), Module(path))
