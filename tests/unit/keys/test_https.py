"""Attacks of key servers, of proxies before them, and of name servers; the rules of caches (RFC 9111)."""

import gzip
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.key_server import HOST, Answer, Authority, KeyServer, serving
from tests.unit.keys.conftest import Names
from watchword import ConfigurationError
from watchword_adapters.keys import https as module
from watchword_adapters.keys.https import Fetched, Https, NotFetchedError, check_url, resolve, shown

Instead: TypeAlias = Callable[[BaseHTTPRequestHandler], None]
DOCUMENT = b'{"keys": []}'
PATH = "/agents.jwks"


def refusal(fetch: Https, url: str) -> str:
    """Return why a document could not be had."""
    with pytest.raises(NotFetchedError) as caught:
        fetch.get(url)
    return str(caught.value)


@pytest.fixture
def plain() -> Iterator[KeyServer]:
    """Return a server that speaks HTTP."""
    with serving() as running:
        running.answers[PATH] = Answer(DOCUMENT)
        yield running


def test_a_document_is_fetched_by_its_name_from_the_address_that_was_checked(
    server: KeyServer, trusting: Https, names: Names
) -> None:
    """The certificate is asked for by name, the server hears its name, and the name server is asked once."""
    server.answers[PATH] = Answer(DOCUMENT)
    assert trusting.get(server.url()) == Fetched(DOCUMENT, None, None)
    ((_, headers),) = server.asked
    assert (headers["host"], headers["accept-encoding"]) == (f"{HOST}:{server.port}", "identity")
    assert names.asked == [HOST]


def test_a_name_that_means_another_machine_a_moment_later_changes_nothing(
    server: KeyServer, trusting: Https, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is bound to another address between check and use (DNS rebinding) is not looked up again (A32)."""
    server.answers[PATH] = Answer(DOCUMENT)
    asked: list[str] = []
    really = socket.getaddrinfo

    def other(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(str(host))
        return really("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", other)
    assert trusting.get(server.url()).body == DOCUMENT
    assert HOST not in asked
    assert names.asked == [HOST]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.5", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "169.254.169.254", "::"]
)
def test_a_name_that_means_our_own_network_is_not_asked(
    server: KeyServer, ca: Authority, names: Names, address: str
) -> None:
    """Where a name points is looked at before anyone is asked (A32)."""
    server.answers[PATH] = Answer(DOCUMENT)
    names[HOST] = [address]
    refused = refusal(Https(ca=ca.path), server.url())
    assert f"{address} is a private address" in refused or f"{address} cannot be the address" in refused
    assert not server.asked


def test_one_private_address_among_public_ones_refuses_the_name(server: KeyServer, ca: Authority, names: Names) -> None:
    """A name server cannot slip one in behind others, which need only fail to answer."""
    names[HOST] = ["93.184.215.14", "127.0.0.1"]
    assert "127.0.0.1 is a private address" in refusal(Https(ca=ca.path), server.url())
    assert not server.asked


def test_metadata_services_are_not_asked_even_where_private_addresses_may_be(
    server: KeyServer, trusting: Https, names: Names
) -> None:
    """A key server in one's own network does not open the way to a cloud's credentials (A32)."""
    names[HOST] = ["169.254.169.254"]
    assert "cannot be the address of a key server" in refusal(trusting, server.url())


def test_private_addresses_may_be_allowed_by_host(server: KeyServer, ca: Authority, names: Names) -> None:
    """One host of the private network is named, and no other is asked there."""
    server.answers[PATH] = Answer(DOCUMENT)
    names["other.acme.test"] = ["127.0.0.1"]
    fetch = Https(ca=ca.path, allow_private=frozenset({HOST}))
    assert fetch.get(server.url()).body == DOCUMENT
    assert "private address" in refusal(fetch, server.url(host="other.acme.test"))


def test_the_next_address_is_tried_where_one_does_not_answer(server: KeyServer, trusting: Https, names: Names) -> None:
    """A host with several addresses is up while one of them is."""
    server.answers[PATH] = Answer(DOCUMENT)
    names[HOST] = ["127.0.0.2", "127.0.0.1"]  # nobody listens on the first
    assert trusting.get(server.url()).body == DOCUMENT
    names[HOST] = ["127.0.0.2", "127.0.0.3"]
    assert "agents.jwks: " in refusal(trusting, server.url())


@pytest.mark.parametrize("names_of_server", [("other.acme.test",), ("127.0.0.1",)])
def test_a_certificate_of_another_name_is_refused(
    ca: Authority, trusting: Https, names_of_server: tuple[str, ...]
) -> None:
    """What answers at the address must have the name's certificate; that of the address is not enough."""
    with serving(ca.server_side(*names_of_server)) as other:
        other.answers[PATH] = Answer(DOCUMENT)
        assert "its certificate is refused: Hostname mismatch" in refusal(trusting, other.url())
        assert not other.asked


def test_a_certificate_of_an_unknown_authority_is_refused(server: KeyServer, trusting: Https, tmp_path: Path) -> None:
    """An attacker in the server's place cannot answer with another certificate."""
    other = replace(trusting, ca=Authority(tmp_path, "other").path)
    assert "its certificate is refused: " in refusal(other, server.url())
    assert "its certificate is refused: " in refusal(replace(trusting, ca=None), server.url())
    assert not server.asked


def test_redirects_are_not_followed(server: KeyServer, trusting: Https) -> None:
    """By default a document is where it was said to be (A32)."""
    server.answers[PATH] = Answer(status=302, headers={"Location": "/elsewhere"})
    server.answers["/elsewhere"] = Answer(DOCUMENT)
    assert refusal(trusting, server.url()).endswith("agents.jwks: redirects, but redirects = 0 allows no more")
    assert server.count("/elsewhere") == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_as_often_as_allowed(server: KeyServer, trusting: Https, status: int) -> None:
    """Each counts, and one more is one too many."""
    server.answers[PATH] = Answer(status=status, headers={"Location": "/a"})
    server.answers["/a"] = Answer(status=status, headers={"Location": server.url("/b")})
    server.answers["/b"] = Answer(DOCUMENT)
    assert replace(trusting, redirects=2).get(server.url()).body == DOCUMENT
    assert "redirects = 1" in refusal(replace(trusting, redirects=1), server.url())


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("https://inside.acme.test/", "redirects, but 10.0.0.5 is a private address"),
        ("http://keys.acme.test/", "redirects, but write https://"),
        ("https://metadata.acme.test/", "redirects, but 169.254.169.254 cannot be the address of a key server"),
        ("file:///etc/passwd", "redirects, but "),
        ("https://user:secret@keys.acme.test/", "redirects, but write the address without a login"),
        ("https://[", "agents.jwks: "),
    ],
)
def test_each_redirect_is_checked_anew(server: KeyServer, ca: Authority, names: Names, target: str, why: str) -> None:
    """A server that may be asked cannot have us ask one that may not (A32)."""
    names["inside.acme.test"], names["metadata.acme.test"] = ["10.0.0.5"], ["169.254.169.254"]
    server.answers[PATH] = Answer(status=302, headers={"Location": target})
    fetch = Https(ca=ca.path, allow_private=frozenset({HOST}), redirects=3)
    told = refusal(fetch, server.url())
    assert why in told
    assert "secret" not in told


def test_plain_http_stays_on_this_machine(plain: KeyServer, trusting: Https, names: Names) -> None:
    """Nobody on the way can put keys into what never leaves the machine; a name that leads away from it is refused."""
    assert trusting.get(plain.url(host="127.0.0.1")).body == DOCUMENT
    names["localhost"] = ["127.0.0.1"]
    assert trusting.get(plain.url(host="localhost")).body == DOCUMENT
    names["localhost"] = ["10.0.0.5"]
    assert "10.0.0.5 is not this machine: write https" in refusal(trusting, plain.url(host="localhost"))
    assert "write https://" in refusal(trusting, plain.url())


@pytest.mark.parametrize(
    "url",
    [
        "", "agents.jwks", "ftp://keys.acme.test/a", "http://keys.acme.test/a", "http://10.0.0.5/a", "https:///a",
        "https://me:secret@keys.acme.test/a", "https://me@keys.acme.test/a", "https://keys.acme.test/a#b",
        "https://keys.acme.test:99999/a", "https://keys.acme.test:0/a", "https://[::1/a", "https://keys.acme.test/a b",
        "https://keys.acme.test/a\r\nX: y",
    ],
)  # fmt: skip
def test_an_address_that_must_not_be_asked_is_no_address(url: str) -> None:
    """An address that is not HTTPS, or has a login in it, raises an error that says what to write."""
    with pytest.raises(ValueError, match="write"):
        check_url(url)


def test_too_many_bytes_are_not_read(server: KeyServer, trusting: Https) -> None:
    """A document is not read beyond its limit, whether its size is announced or not (A32)."""
    sent = threading.Event()

    def without_end(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                handler.wfile.write(b" " * 65_536)
        except OSError:
            sent.set()

    fetch = replace(trusting, max_size=1000)
    server.answers[PATH] = Answer(b" " * 1001)
    assert refusal(fetch, server.url()).endswith("over 1000 bytes")
    server.answers[PATH] = Answer(b" " * 1000)
    assert fetch.get(server.url()).body == b" " * 1000
    server.answers[PATH] = Answer(instead=without_end)
    assert refusal(fetch, server.url()).endswith("over 1000 bytes")
    assert sent.wait(10)


def test_nothing_is_unpacked(server: KeyServer, trusting: Https) -> None:
    """A small answer cannot become a large one (A32)."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    server.answers[PATH] = Answer(gzip.compress(b" " * 500_000), headers=headers)
    assert refusal(trusting, server.url()).endswith("compressed, although not requested")


def dribbling(head: bytes, part: bytes = b"X: y\r\n", end: bytes = b"") -> Instead:
    """Return what sends a whole answer, but a little now and then, for longer than anyone should wait."""

    def dribble(handler: BaseHTTPRequestHandler) -> None:
        pause = threading.Event()
        try:
            handler.wfile.write(head)
            for _ in range(100):
                pause.wait(0.02)
                handler.wfile.write(part)
            handler.wfile.write(end)
            handler.close_connection = True
        except OSError:
            return

    return dribble


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Wait until the other side hangs up."""
    try:
        handler.rfile.read(1)
    except OSError:
        return


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "instead",
    [silent, dribbling(OK, end=b"\r\n" + DOCUMENT), dribbling(OK + b"\r\n", b" ", DOCUMENT)],
    ids=["silent", "headers", "body"],
)
def test_the_time_is_limited_as_a_whole(server: KeyServer, trusting: Https, instead: Instead) -> None:
    """A server that says nothing, or a little now and then, is waited for no longer than the limit (A21)."""
    server.answers[PATH] = Answer(instead=instead)
    assert "agents.jwks: " in refusal(replace(trusting, timeout=0.3), server.url())


def test_one_that_does_not_shake_hands_has_the_same_limit(trusting: Https) -> None:
    """A server that takes the connection and never speaks TLS is left."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://{HOST}:{listening.getsockname()[1]}{PATH}"
        assert "agents.jwks: " in refusal(replace(trusting, timeout=0.2), url)


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("application/json", True),
        ("application/jwk-set+json; charset=utf-8", True),
        ("application/http-message-signatures-directory+json", True),
        ("APPLICATION/JSON", True),
        ("text/plain", True),
        ("application/octet-stream", True),
        (None, True),
        ("text/html; charset=utf-8", False),
        ("application/xml", False),
    ],
)
def test_a_web_page_is_no_key_set(server: KeyServer, trusting: Https, kind: str | None, taken: bool) -> None:  # noqa: FBT001 - a row
    """A key set is accepted under every type that file servers use; a portal's login page is refused as not JSON."""
    server.answers[PATH] = Answer(DOCUMENT, headers={} if kind is None else {"Content-Type": kind})
    if taken:
        assert trusting.get(server.url()).body == DOCUMENT
    else:
        assert "instead of JSON" in refusal(trusting, server.url())


@pytest.mark.parametrize("status", [201, 204, 302, 304, 403, 404, 429, 500, 503])
def test_any_other_answer_is_none(server: KeyServer, trusting: Https, status: int) -> None:
    """Only 200 brings a document, and only 304 to a question for changes confirms the one that is known."""
    server.answers[PATH] = Answer(status=status, headers={})
    assert f"answered {status}" in refusal(trusting, server.url())


def test_a_document_that_is_known_is_not_sent_again(server: KeyServer, trusting: Https) -> None:
    """Its ETag goes back as it came."""
    server.answers[PATH] = Answer(DOCUMENT, headers={"ETag": 'W/"7"', "Cache-Control": "max-age=60"})
    assert trusting.get(server.url()) == Fetched(DOCUMENT, 'W/"7"', 60.0)
    assert trusting.get(server.url(), etag='W/"7"') == Fetched(None, 'W/"7"', 60.0)
    assert server.asked[-1][1]["if-none-match"] == 'W/"7"'


@pytest.mark.parametrize("etag", ["7", '"7', f'"{"7" * 257}"', '"a b"', ""])
def test_an_etag_that_is_none_is_not_kept(server: KeyServer, trusting: Https, etag: str) -> None:
    """What we send back is what the standard calls one, and short."""
    server.answers[PATH] = Answer(DOCUMENT, headers={"ETag": etag})
    assert trusting.get(server.url()).etag is None


@pytest.mark.parametrize(
    ("said", "age", "fresh"),
    [
        (None, None, None),
        ("public", None, None),
        ("max-age=600", None, 600.0),
        ("public, Max-Age=600, s-maxage=5", None, 600.0),
        ('max-age="600"', None, 600.0),
        ("max-age=600", "200", 400.0),
        ("max-age=600", "601", 0.0),
        ("max-age=600", "soon", 600.0),
        ("max-age=600, max-age=60", None, 60.0),
        ("max-age=-1", None, 0.0),
        ("max-age=", None, 0.0),
        ("max-age", None, 0.0),
        ("max-age=99999999999", None, 0.0),
        ("max-age=1e9", None, 0.0),
        ("no-store, max-age=600", None, 0.0),
        ("no-cache", None, 0.0),
    ],
)
def test_how_long_an_answer_is_fresh(
    server: KeyServer, trusting: Https, said: str | None, age: str | None, fresh: float | None
) -> None:
    """It is as RFC 9111 has it; what must not be stored and what is wrong is not fresh at all."""
    headers = {name: value for name, value in (("Cache-Control", said), ("Age", age)) if value is not None}
    server.answers[PATH] = Answer(DOCUMENT, headers=headers)
    assert trusting.get(server.url()).max_age == fresh


def test_a_proxy_of_the_environment_is_not_asked(
    server: KeyServer, plain: KeyServer, trusting: Https, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that others set do not lead our questions to them, unless the settings say so."""
    plain.answers[server.url()] = Answer(DOCUMENT)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, plain.url("", host="127.0.0.1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.answers[PATH] = Answer(DOCUMENT)
    assert trusting.get(server.url()).body == DOCUMENT
    assert not plain.asked
    asked = replace(trusting, proxy="environment", timeout=2.0)
    refusal(asked, server.url())  # our proxy cannot CONNECT; that it was asked at all is what counts
    assert server.count() == 1
    monkeypatch.setenv("https_proxy", plain.url("", host="127.0.0.1").removeprefix("http://"))
    assert "501" in refusal(asked, server.url())
    monkeypatch.setenv("NO_PROXY", HOST)
    monkeypatch.setenv("no_proxy", HOST)
    assert asked.get(server.url()).body == DOCUMENT


def test_a_proxy_of_the_settings_finds_the_address(plain: KeyServer, trusting: Https, names: Names) -> None:
    """It is asked by name, and has the rules for who may be reached."""
    names.clear()
    plain.answers["http://localhost:1/agents.jwks"] = Answer(DOCUMENT)
    by_proxy = replace(trusting, proxy=plain.url("", host="127.0.0.1"))
    assert by_proxy.get("http://localhost:1/agents.jwks").body == DOCUMENT
    assert not names.asked


@pytest.mark.parametrize("proxy", ["", "proxy:3128", "ftp://proxy", "socks5://bob:hunter2@127.0.0.1:1080"])
def test_a_proxy_that_is_none_is_refused(proxy: str) -> None:
    """A wrong proxy raises an error at the start; neither that nor ``repr`` shows the login of a proxy (A32)."""
    with pytest.raises(ConfigurationError, match="proxy: write") as error:
        Https(proxy=proxy)
    assert "hunter2" not in str(error.value)
    assert "secret" not in repr(Https(proxy="http://me:secret@proxy:3128"))


def test_a_host_that_nobody_knows_is_told_in_words(trusting: Https, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address is a cause like others, and what a query hides stays hidden."""

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port}")

    monkeypatch.setattr(module, "resolve", unknown)
    told = refusal(trusting, "https://none.acme.test/a?token=secret")
    assert told == "https://none.acme.test/a: its host has no address"


def test_this_machine_has_its_addresses() -> None:
    """Names are looked up as the system does it."""
    assert set(resolve("localhost", 443)) & {"127.0.0.1", "::1"}


def test_a_name_of_another_writing_system_is_asked_by_its_own_name(trusting: Https, names: Names) -> None:
    """Its host is looked up, and its certificate asked for, as the network writes it."""
    names["xn--mller-kva.test"] = ["127.0.0.2"]
    refusal(trusting, "https://müller.test:1/a")
    assert names.asked == ["xn--mller-kva.test"]


def test_authorities_that_are_none_are_refused(tmp_path: Path) -> None:
    """A file without certificates stops the start."""
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(ConfigurationError, match="ca = "):
        Https(ca=tmp_path / "ca.pem")
    assert isinstance(Https()._tls, ssl.SSLContext)


def test_a_login_is_never_shown() -> None:
    """A password that stands in an address by mistake gets into no error and no log."""
    for url in ("https://bob:hunter2@a.test/k?q=hunter2#hunter2", "https://bob:hun@ter2@a.test/k"):
        assert shown(url) == "https://a.test/k"
    for url in ("//hunter2@a.test/k", "bob:hunter2@a.test/k", "hunter2:@a.test/k", "https://bob:hun/ter2?#@a.test/k"):
        assert shown(url).removeprefix("https://") == "a.test/k"
    assert shown("https://a.test/@bob/k") == "https://a.test/@bob/k"


def test_an_old_tls_is_told_in_words(ca: Authority, trusting: Https) -> None:
    """A handshake that fails, or gets no answer, is reported in words, and not by the name of an exception."""
    context = ca.server_side(HOST)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(context) as old:
        assert "TLS fails: " in refusal(trusting, old.url())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        text = refusal(replace(trusting, timeout=0.4), f"https://{HOST}:{port}{PATH}")
        assert text.endswith("no connection in time, or no TLS there")
    with serving(ca.server_side(HOST)) as down:
        down.refuses = True
        assert "TLS fails: unexpected eof" in refusal(trusting, down.url())


@pytest.mark.parametrize("proxy", ["socks5://bob:hunter2@127.0.0.1:1", "http://bob:hunter2@a:b"])
def test_a_proxy_of_the_environment_is_one_of_http(
    trusting: Https, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment that is not an HTTP proxy is reported as such, without the login in its address."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", proxy)
    text = refusal(replace(trusting, proxy="environment"), "https://a.test/k")
    assert text == "https://a.test/k: the proxy in the environment is not an HTTP proxy"


def test_an_address_that_can_never_be_asked_is_refused_at_once(trusting: Https) -> None:
    """An address that is wrong in itself raises an error at the start, and not at the first message."""
    for url in ("http://localhost/k", "http://127.0.0.1/k", "https://10.0.0.1/k", "https://localhost/k"):
        with pytest.raises(
            ValueError, match="is a private address: if that is intended, name its host in allow_private"
        ):
            Https().check(url)
        trusting.check(url)
    with pytest.raises(ValueError, match="cannot be the address of a key server"):
        trusting.check("https://169.254.169.254/k")
    for allowed in (Https(proxy="http://proxy:3128"), Https(allow_private=frozenset({"LOCALHOST"}))):
        allowed.check("https://localhost/k")
    Https().check("https://keys.test/k")
