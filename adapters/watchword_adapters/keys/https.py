"""Fetches one small document over HTTPS, only from the intended server.

It limits what a name server, a redirect or the server itself can do. The address that was checked is the one that is
used, so that a name cannot mean another machine a moment later; TLS still checks the certificate against the name.
Redirects are followed only as often as allowed, and each is checked. Size and time are limited, and nothing is
decompressed. Proxies and certificates from the environment are used only if the operator says so.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from watchword import ConfigurationError
from watchword_adapters.keys.addresses import is_loopback, why_refused

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.parse import SplitResult

ENVIRONMENT: Final = "environment"
"""The value of ``proxy`` that means the proxy in the environment."""

_MOST_ADDRESSES: Final = 4
"""Most addresses of a server that are tried, one after the other."""

_ACCEPT: Final = (
    "application/jwk-set+json, application/http-message-signatures-directory+json, application/json, */*;q=0.1"
)
_PLAIN_TYPES: Final = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream"})
"""Content types of servers that do not know what they serve."""

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"https": 443, "http": 80}
_LOCALHOST: Final = "localhost"
_PROXY: Final = re.compile(r"https?://", re.IGNORECASE)
_LOGIN: Final = re.compile(r"([A-Za-z]+://)?.*@", re.DOTALL)
_ETAG: Final = re.compile(
    r'(?:W/)?"[\x21\x23-\x7e]{0,256}"'
)  # RFC 9110 section 8.8.3, and not longer than we would keep
_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


class NotFetchedError(Exception):
    """The document could not be fetched; the text begins with its address, without the query, and says why."""


class Fetched(NamedTuple):
    """A document; ``body`` is None if it has not changed.

    ``max_age`` is the number of seconds for which it is still fresh; None if the server does not say.
    """

    body: bytes | None
    etag: str | None
    max_age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Https:
    """Fetches documents; ``get`` blocks, so call it in a thread.

    ``timeout`` is in seconds and for a whole fetch, ``max_size`` in bytes. ``allow_private`` allows private addresses,
    to all hosts or to those that it names. ``ca`` is a PEM file with the authorities to trust, by default the system's.
    If there is a ``proxy``, it resolves and checks the address instead.
    """

    timeout: float = 5.0
    max_size: int = 1 << 20
    redirects: int = 0
    allow_private: bool | frozenset[str] = False
    ca: Path | None = None
    proxy: str | None = field(default=None, repr=False)  # there may be a login in it
    _tls: ssl.SSLContext = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_tls", ssl.create_default_context(cafile=self.ca))
        except OSError as error:  # ssl's errors are OSErrors
            why = "no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigurationError(f"ca = {str(self.ca)!r}: {why}") from None
        if self.proxy not in {None, ENVIRONMENT}:
            try:
                _check_proxy(self.proxy or "")
            except ValueError:
                raise ConfigurationError('proxy: write "http://<host>:<port>", or "environment"') from None

    def check(self, url: str) -> None:
        """Raise ValueError if a URL is always refused, as far as that is known without a name server."""
        parts = check_url(url)
        host = parts.hostname or ""
        if self.proxy is not None:
            return
        try:
            why = self._why_refused(parts, "127.0.0.1" if host == _LOCALHOST else host)
        except ValueError:
            return  # a name
        if why is not None:
            raise ValueError(why)

    def get(self, url: str, *, etag: str | None = None) -> Fetched:
        """Return the document at ``url``, known so far under ``etag``; NotFetchedError says why it is not available."""
        try:
            return asyncio.run(self._get(url, etag))
        except TimeoutError:
            raise NotFetchedError(f"{shown(url)}: takes longer than {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise NotFetchedError(f"{shown(url)}: {_told(error)}") from None

    async def _get(self, url: str, etag: str | None) -> Fetched:
        at = url
        async with asyncio.timeout(self.timeout):
            for _ in range(self.redirects + 1):
                try:
                    answer = await self._ask(at, check_url(at), etag)
                    if isinstance(answer, Fetched):
                        return answer
                    at = urljoin(at, answer)
                except ValueError as error:
                    raise NotFetchedError(f"{shown(url)}: {'' if at == url else 'redirects, but '}{error}") from None
        raise NotFetchedError(f"{shown(url)}: redirects, but redirects = {self.redirects} allows no more")

    async def _ask(self, url: str, parts: SplitResult, etag: str | None) -> Fetched | str:
        """Return the document at ``url``, or the URL to which it redirects; ValueError if that is not allowed."""
        headers = {
            "Accept": _ACCEPT,
            "Accept-Encoding": "identity",
            "Cache-Control": "no-cache",  # a cache on the way may have an older document than ours
            "User-Agent": "watchword",
        }
        if etag is not None:
            headers["If-None-Match"] = etag
        proxy = self._proxy(parts)
        # The connect timeout is shorter, so that a silent address leaves time for the next.
        async with httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            proxy=proxy,
            timeout=httpx.Timeout(self.timeout, connect=self.timeout / 2),
        ) as client:
            if proxy is not None:
                return await self._exchange(client, client.build_request("GET", url, headers=headers))
            failure: httpx.TransportError | None = None
            for address in self._addresses(parts)[:_MOST_ADDRESSES]:
                there = httpx.URL(url)
                request = client.build_request(
                    "GET",
                    there.copy_with(host=address),
                    headers=headers | {"Host": there.netloc.decode("ascii")},
                    extensions={"sni_hostname": there.raw_host.decode("ascii")},
                )
                try:
                    return await self._exchange(client, request)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    failure = failure or error
        assert failure is not None  # noqa: S101 - a name without address is an OSError, so there was one
        raise failure

    def _proxy(self, parts: SplitResult) -> str | None:
        if self.proxy != ENVIRONMENT:
            return self.proxy
        named = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        if named is None:
            return None
        proxy = named if "://" in named else f"http://{named}"
        try:
            _check_proxy(proxy)
        except ValueError:
            raise ValueError("the proxy in the environment is not an HTTP proxy") from None
        return proxy

    def _addresses(self, parts: SplitResult) -> list[str]:
        """Return the addresses of a host; ValueError if any is refused, since the next answer could begin with it."""
        host = parts.hostname or ""
        addresses = resolve(
            httpx.URL(scheme="https", host=host).raw_host.decode("ascii"), parts.port or _PORTS[parts.scheme]
        )
        for address in addresses:
            why = self._why_refused(parts, address)
            if why is not None:
                raise ValueError(why)
        return addresses

    def _why_refused(self, parts: SplitResult, address: str) -> str | None:
        """Return why an address is refused for a host; None if it is not. ValueError if it is not an address."""
        host, allowed = parts.hostname, self.allow_private
        private = allowed if isinstance(allowed, bool) else host in {name.lower() for name in allowed}
        if (why := why_refused(address, allow_private=private)) is not None:
            return why
        if parts.scheme == "http" and not is_loopback(address):
            return f"{address} is not this machine: write https"
        return None

    async def _exchange(self, client: httpx.AsyncClient, request: httpx.Request) -> Fetched | str:
        response = await client.send(request, stream=True)
        try:
            status, headers = response.status_code, response.headers
            if status in _REDIRECTS and "location" in headers:
                return str(headers["location"])
            etag = str(headers.get("etag", ""))
            known = etag if _ETAG.fullmatch(etag) else None
            if status == _NOT_MODIFIED and "if-none-match" in request.headers:
                return Fetched(None, known, _max_age(headers))
            if status != _OK:
                raise ValueError(f"answered {status}")
            _check_type(headers)
            return Fetched(await self._body(response), known, _max_age(headers))
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response) -> bytes:
        told = response.headers.get("content-length", "")
        body = bytearray()
        if not _DIGITS.fullmatch(told) or int(told) <= self.max_size:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self.max_size:
                    break
            else:
                return bytes(body)
        raise ValueError(f"over {self.max_size} bytes")


def check_url(url: str) -> SplitResult:
    """Return the parts of a URL that may be fetched; ValueError says what to write instead."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, 0
    if not host or port == 0 or not url.isprintable() or " " in url:
        raise ValueError("not the URL of a document: write https://<host>/<path>")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("write the address without a login, and without #")
    if parts.scheme == "http" and (host == _LOCALHOST or _is_own_literal(host)):
        return parts
    if parts.scheme != "https":
        raise ValueError("write https://; http:// is for this machine only, as http://localhost")
    return parts


def _is_own_literal(host: str) -> bool:
    try:
        return is_loopback(host)
    except ValueError:
        return False


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which to try them; OSError if there is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def shown(url: str) -> str:
    """Return a URL for logs and errors, without login, query and fragment, which may contain secrets."""
    try:
        parts = urlsplit(url)
        has_login = not parts.hostname or parts.username is not None or parts.port == 0
    except ValueError:  # an invalid port, perhaps the start of a password
        has_login = True
    if has_login:
        url = _LOGIN.sub(r"\1", url, count=1)
    return re.split("[?#]", url, maxsplit=1)[0]


def _check_proxy(proxy: str) -> None:
    """Raise ValueError, whose text may show a login, unless this is the address of an HTTP proxy."""
    try:
        httpx.Proxy(proxy)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if not _PROXY.match(proxy):  # httpx speaks SOCKS too, with another package
        raise ValueError("not of HTTP")


def _check_type(headers: httpx.Headers) -> None:
    """Refuse a web page, such as a captive portal's; accept the content types of a plain file server."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _PLAIN_TYPES and not kind.endswith(("/json", "+json")):
        raise ValueError(f"content type {kind[:64]!r} instead of JSON")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ValueError("compressed, although not requested")


def _max_age(headers: httpx.Headers) -> float | None:
    """Return for how many seconds an answer is still fresh (RFC 9111 sections 4.2.1, 4.2.3 and 5.2.2).

    None if the server does not say. An answer that must not be stored, or has an invalid value, is not fresh at all.
    """
    names = [part.partition("=") for part in headers.get("cache-control", "").lower().split(",")]
    said = [(name.strip(), value.strip().strip('"')) for name, _, value in names]
    if any(name in {"no-store", "no-cache"} for name, _ in said):
        return 0.0
    ages = [value for name, value in said if name == "max-age"]
    if not ages:
        return None
    if not all(map(_DIGITS.fullmatch, ages)):
        return 0.0
    spent = headers.get("age", "")
    return float(max(0, min(map(int, ages)) - (int(spent) if _DIGITS.fullmatch(spent) else 0)))


def _told(error: Exception) -> str:
    """Return what went wrong, without numbers that differ each time, since each cause is logged once."""
    if isinstance(error, socket.gaierror):
        return "its host has no address"
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time, or no TLS there"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return f"TLS fails: {cause.reason.replace('_', ' ').lower()}"
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
