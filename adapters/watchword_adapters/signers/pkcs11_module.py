"""A PKCS#11 library of this process: one thread calls it for all signers, and each token has one session."""

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
"""Least seconds between two times that a library is begun again, which ends the sessions of all its tokens."""


class NoTokenError(ConfigurationError):
    """The library has no token of this label, or not now."""


class Module:
    """A library, by its path. All but ``workers`` is for the one thread that calls it.

    The standard has one instance of a library in a process; python-pkcs11 tells it that no two threads will call it at
    once, and a login holds for all sessions of a token.
    """

    def __init__(self, path: str) -> None:
        self.workers: Final = Workers()
        self._path = path
        self._pid = os.getpid()
        self._sessions: dict[str, Session] = {}
        self._salt = os.urandom(32)
        self._pins: dict[str, tuple[bytes, Secret]] = {}
        self._refused: dict[str, bytes] = {}
        self._next_begin = 0.0

    def session(self, token: str, pin: Secret) -> Session:
        """Return the session of the token with this label; ConfigurationError, or an error of the library's."""
        if self._pid != os.getpid():
            self._begin_anew()
        session = self._sessions.get(token)
        if session is None:
            session = self._opened(token, pin, rw=False)
        return session

    def try_pin(self, token: str, pin: Secret) -> None:
        """Log in by a PIN now where the open session had another one; ConfigurationError if the token refuses it.

        The session that was open is opened again then. Where that could not be, as its PIN has been replaced, the new
        one is tried when the next session is opened.
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

    def begin_again(self) -> bool:
        """Have the library begin again when it is next needed, unless it did so within PAUSE; then False.

        Some libraries look for tokens, and connect to the HSM, only when they begin (PKCS#11 3.0, 5.4).
        """
        if monotonic() < self._next_begin:
            return False
        self._next_begin = monotonic() + PAUSE
        for token in tuple(self._sessions):
            self.close(token)
        self._finalize()
        return True

    def close(self, token: str) -> None:
        """Close a session, if it can still be closed; the next call opens another."""
        session = self._sessions.pop(token, None)
        if session is not None:
            with suppress(errors.PKCS11Error):
                session.close()

    def writable(self, token: str, pin: Secret) -> Session:
        """Return a session in which keys are made; it is the token's session from now on."""
        self.close(token)
        return self._opened(token, pin, rw=True)

    def _begin_anew(self) -> None:
        """Begin in a forked child: the sessions are the parent's, and so is what the library knows."""
        self._pid = os.getpid()
        self._sessions.clear()
        self._finalize()

    def _finalize(self) -> None:
        with suppress(errors.PKCS11Error, ConfigurationError):  # some have noticed a fork, or a loss, themselves
            self._library().finalize()

    def _library(self) -> Any:
        try:
            return pkcs11.lib(self._path)
        except errors.PKCS11Error as error:
            if Path(self._path).is_file():
                begin = f"it does not begin ({type(error).__name__}): see its configuration, and where its tokens are"
                told = " ".join(str(error).split()) or begin  # only one that is no library has a text
                raise ConfigurationError(f"module {self._path}: {told}") from None
            raise ConfigurationError(
                f"module {self._path}: no such file; install the token's PKCS#11 library"
            ) from None

    def _opened(self, label: str, pin: Secret, *, rw: bool) -> Session:
        """Open the token's session and log in. A PIN that was refused is not tried again: tokens lock after a few."""
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
            raise ConfigurationError("the token refused this PIN before; it is not tried again until it is another one")

    def _token(self, label: str) -> Token:
        try:
            token: Token = self._library().get_token(token_label=label)
        except errors.NoSuchToken:
            raise NoTokenError(f"the module has no token labelled {label!r}") from None
        except errors.MultipleTokensReturned:
            raise ConfigurationError(f"several tokens are labelled {label!r}: give each a label of its own") from None
        return token


# A library is there once in a process, whether we like it or not, so its users have to share the thread that calls it.
_MODULES: Final[dict[str, Module]] = {}
_ONE_AT_A_TIME: Final = threading.Lock()


def module(path: str) -> Module:
    """Return the library at ``path``; two who name it, by whatever link, get the same one."""
    with _ONE_AT_A_TIME:
        return _MODULES.setdefault(str(Path(path).resolve()), Module(path))
