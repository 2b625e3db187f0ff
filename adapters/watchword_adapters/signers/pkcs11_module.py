"""A PKCS#11 library of this process: one thread calls it, whoever signs by it, and each token has one session."""

from __future__ import annotations

import hmac
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import exceptions as errors

from watchword import ConfigurationError
from watchword_adapters.signers.worker import Workers

if TYPE_CHECKING:
    from pkcs11.types import Session, Token

    from watchword_adapters.signers.secret import Secret


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
        self._refused: dict[str, bytes] = {}

    def session(self, token: str, pin: Secret) -> Session:
        """Return the session of the token with this label; ConfigurationError, or an error of the library's."""
        if self._pid != os.getpid():
            self._begin_anew()
        session = self._sessions.get(token)
        if session is None:
            session = self._sessions[token] = self._opened(token, pin.read(), rw=False)
        return session

    def close(self, token: str) -> None:
        """Close a session, if it can still be closed; the next call opens another."""
        session = self._sessions.pop(token, None)
        if session is not None:
            with suppress(errors.PKCS11Error):
                session.close()

    def writable(self, token: str, pin: Secret) -> Session:
        """Return a session in which keys are made; it is the token's session from now on."""
        self.close(token)
        session = self._sessions[token] = self._opened(token, pin.read(), rw=True)
        return session

    def _begin_anew(self) -> None:
        """Begin in a forked child: the sessions are the parent's, and so is what the library knows."""
        self._pid = os.getpid()
        self._sessions.clear()
        with suppress(errors.PKCS11Error):  # some have noticed it themselves
            self._library().finalize()

    def _library(self) -> Any:
        try:
            return pkcs11.lib(self._path)
        except errors.PKCS11Error as error:
            if Path(self._path).is_file():
                raise ConfigurationError(f"module {self._path} does not load: {type(error).__name__}") from None
            raise ConfigurationError(
                f"module {self._path}: no such file; install the token's PKCS#11 library"
            ) from None

    def _opened(self, label: str, pin: str, *, rw: bool) -> Session:
        """Open a session and log in. A PIN that was refused is not tried again: after a few times tokens lock."""
        tried = hmac.digest(self._salt, pin.encode(), "sha256")
        if self._refused.get(label) == tried:
            raise ConfigurationError("the token refused this PIN before; it is not tried again until it is another one")
        token = self._token(label)
        try:
            return token.open(rw=rw, user_pin=pin)
        except errors.UserAlreadyLoggedIn:  # by the application, which uses the library itself
            return token.open(rw=rw)
        except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange):
            self._refused[label] = tried
            raise ConfigurationError("the token refuses the PIN") from None
        except errors.PinLocked:
            raise ConfigurationError("the token's PIN is locked: its security officer sets it anew") from None

    def _token(self, label: str) -> Token:
        try:
            token: Token = self._library().get_token(token_label=label)
        except errors.NoSuchToken:
            raise ConfigurationError(f"the module has no token labelled {label!r}") from None
        except errors.MultipleTokensReturned:
            raise ConfigurationError(f"several tokens are labelled {label!r}: give each a label of its own") from None
        return token


# A library is there once in a process, whether we like it or not, so whoever uses it has to share what calls it.
_MODULES: Final[dict[str, Module]] = {}
_ONE_AT_A_TIME: Final = threading.Lock()


def module(path: str) -> Module:
    """Return the library at ``path``; two who name it, by whatever link, get the same one."""
    with _ONE_AT_A_TIME:
        return _MODULES.setdefault(str(Path(path).resolve()), Module(path))
