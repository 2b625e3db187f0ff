"""Signs with one version of a private key in the Transit engine of HashiCorp Vault or OpenBao."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from contextlib import closing
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, Field, StringConstraints

from watchword import Algorithm, ConfigurationError, Unavailable
from watchword.strict import from_base64, to_base64
from watchword_adapters.signers.held import HeldKey, HeldOptions
from watchword_adapters.signers.secret import Secret
from watchword_adapters.signers.worker import PerProcess, Workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.algorithms import PublicKey
    from watchword.spi import Context

MAX_ANSWER: Final = 256 * 1024
"""Bytes; the answer for a key with thousands of versions is shorter."""

_AT_ONCE: Final = 4
_LOOPBACK: Final = "localhost"
_OK: Final = 200
_FORBIDDEN: Final = 403
_NONSENSE: Final = "the answer is not from a Transit engine"
_REMEDIES: Final = {
    400: "there is no such key or version, or it may not sign",
    403: "the token is refused: it has expired, or its policy does not allow this path",
    404: "there is no such key or engine",
}
_HINTS: Final = {
    307: "a standby redirects, and the token is not sent there: name the active node",
    429: "it is busy, or on standby",
    500: "it has failed, or this version may not sign: check min_encryption_version, and whether the key is derived",
    503: "it is sealed, or under maintenance",
}
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError('write the address of the server, as "https://vault.acme.internal:8200"')
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("a token is not sent in the clear: write https://")
    if parts.path.rstrip("/").endswith("/v1"):
        raise ValueError('write the address without "/v1", which is added')
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == _LOOPBACK or ip_address(host).is_loopback
    except ValueError:
        return False


_NAME: Final = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_Path = Annotated[str, StringConstraints(pattern=f"^{_NAME}(/{_NAME})*$")]


class Options(HeldOptions):
    """``[signer]`` with ``source = "transit"``: the server, the key's name and the version that signs.

    ``token_env`` or ``token_file`` says where the token is. ``ca`` is a PEM file with the authorities to trust.
    """

    address: Annotated[str, AfterValidator(_address)]
    key: Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
    version: Annotated[int, Field(ge=1)]
    mount: _Path = "transit"
    namespace: _Path | None = None
    ca: str | None = None
    token_env: str | None = None
    token_file: str | None = None


def from_options(options: Mapping[str, Any], context: Context) -> HeldKey:
    """Return the key in the engine, once a probe has shown that it signs."""
    chosen = context.validate(Options, options)
    token = Secret.required("token", variable=chosen.token_env, file=chosen.token_file, context=context)
    try:
        trusted = ssl.create_default_context(cafile=None if chosen.ca is None else context.directory / chosen.ca)
    except ssl.SSLError:
        raise ConfigurationError(f"ca: {chosen.ca}: no certificate in PEM") from None
    except OSError as error:
        raise ConfigurationError(f"ca: {chosen.ca}: {error.strerror}") from None
    return HeldKey.of(TransitKey(chosen, token, trusted), chosen, context, workers=Workers(_AT_ONCE))


class TransitKey:
    """See ``Custodian``: one version of a key in the engine.

    The token is read when it is first needed, and again when the server refuses it, since a renewal replaces it.
    """

    def __init__(self, options: Options, token: Secret, trusted: ssl.SSLContext) -> None:
        self._options = options
        self._token = token
        self._known: str | None = None
        self._client = PerProcess(partial(_client, options, trusted), httpx.Client.close)

    def public(self) -> PublicKey:
        """See ``Custodian``."""
        told = self._ask("GET", f"keys/{self._options.key}")
        kind, version = told.get("type"), str(self._options.version)
        if kind not in {"ed25519", "ecdsa-p256"}:
            raise ConfigurationError(f"a key of type {str(kind)[:32]!r}: use ed25519 or ecdsa-p256")
        if told.get("derived"):
            raise ConfigurationError("the key is derived, so it has no public half: make one without derived=true")
        least = told.get("min_encryption_version")
        if isinstance(least, int) and least > self._options.version:
            raise ConfigurationError(f"version {version} may not sign: min_encryption_version of the key is {least}")
        versions = told.get("keys")
        if not isinstance(versions, dict) or version not in versions:
            raise ConfigurationError(f"the key has no version {version}")
        try:
            text = versions[version]["public_key"]
            if kind == "ed25519":
                return ed25519.Ed25519PublicKey.from_public_bytes(from_base64(text))
            return load_pem_public_key(text.encode())  # type: ignore[return-value]  # VerificationKey refuses other kinds
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Unavailable("signing", _NONSENSE) from None

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """See ``Custodian``."""
        wanted: dict[str, object] = {"key_version": self._options.version}
        path = f"sign/{self._options.key}"
        if algorithm is Algorithm.ED25519:
            wanted["input"] = to_base64(data)
        else:  # hashed here, so that only the digest is sent; JWS has the signature as r || s
            wanted |= {"input": to_base64(sha256(data).digest()), "prehashed": True}
            wanted["marshaling_algorithm"] = "jws"
            path += "/sha2-256"
        told = self._ask("POST", path, wanted)
        mark, version, text = (*str(told.get("signature")).split(":"), "", "")[:3]
        if (mark, version) != ("vault", f"v{self._options.version}"):
            raise Unavailable("signing", _NONSENSE)
        try:
            return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise Unavailable("signing", _NONSENSE) from None

    def _ask(self, method: str, path: str, wanted: dict[str, object] | None = None) -> dict[str, Any]:
        known = self._known
        status, body = self._answer(method, path, wanted, known or self._read_token())
        if status == _FORBIDDEN and known is not None and self._read_token() != known:
            status, body = self._answer(method, path, wanted, self._known or "")
        if status in _REMEDIES:
            raise ConfigurationError(f"{_REMEDIES[status]} ({status} for {method} {path})")
        if status != _OK:
            hint = f": {_HINTS[status]}" if status in _HINTS else ""
            raise Unavailable("signing", f"the server answers {status}{hint}")
        try:
            told = json.loads(body)["data"]
        except (ValueError, KeyError, TypeError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise Unavailable("signing", _NONSENSE)
        return told

    def _read_token(self) -> str:
        token = self._token.read()
        if not _TOKEN.fullmatch(token):
            raise ConfigurationError("token: write printable characters without blanks")
        self._known = token
        return token

    def _answer(self, method: str, path: str, wanted: dict[str, object] | None, token: str) -> tuple[int, bytes]:
        try:
            return self._tried_twice(method, path, wanted, token)
        except httpx.TransportError as error:
            raise Unavailable("signing", _why(error)) from None

    def _tried_twice(self, method: str, path: str, wanted: dict[str, object] | None, token: str) -> tuple[int, bytes]:
        try:
            return self._one_answer(method, path, wanted, token)
        except httpx.TimeoutException:
            raise
        except httpx.TransportError:
            pass  # a server may end a connection just as it is used again, and signing twice is safe
        return self._one_answer(method, path, wanted, token)

    def _one_answer(self, method: str, path: str, wanted: dict[str, object] | None, token: str) -> tuple[int, bytes]:
        """Return the server's status and body, within the limits on time and size."""
        end = time.monotonic() + self._options.timeout
        client = self._client.get()
        request = client.build_request(method, path, json=wanted, headers={"X-Vault-Token": token})
        body = b""
        with closing(client.send(request, stream=True)) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > MAX_ANSWER or time.monotonic() > end:
                    raise Unavailable("signing", _NONSENSE)
            return answer.status_code, body

    def __repr__(self) -> str:
        chosen = self._options
        return f"transit {chosen.address}, key {chosen.mount}/{chosen.key} version {chosen.version}"


def _client(options: Options, trusted: ssl.SSLContext) -> httpx.Client:
    """Return a client without proxies from the environment; it follows no redirect, which would get the token, too."""
    return httpx.Client(
        base_url=f"{options.address}/v1/{options.mount}/",
        verify=trusted,
        trust_env=False,
        timeout=options.timeout,
        headers={} if options.namespace is None else {"X-Vault-Namespace": options.namespace},
    )


def _why(error: httpx.TransportError) -> str:
    """Return why there is no answer, from underlying errors: they do not contain the request with its token."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({below.verify_message}): name its authority in ca"
        if isinstance(below, ssl.SSLError):
            return f"TLS fails ({below.reason}): check scheme and port of address"
        if isinstance(below, OSError) and below.strerror:
            return f"no connection: {below.strerror}"
        below = below.__cause__ or below.__context__
    return type(error).__name__
