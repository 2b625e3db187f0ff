from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.workload_api import Authority, Private, Svid, p256, usage
from watchword import Algorithm, ConfigurationError, VerificationKey
from watchword.keys import thumbprint_id
from watchword_adapters.spiffe import certificates as module
from watchword_adapters.spiffe.certificates import (
    MAX_BUNDLE_BYTES,
    NotVouchedForError,
    check_trust_domain,
    read_authorities,
    trust_domain_of,
    verified_key,
)

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Authority(now=NOW)
PLANNER = "spiffe://acme.example/planner"


def looked_at(svid: Svid, *roots: Authority, now: datetime = NOW, domain: str = "acme.example") -> VerificationKey:
    """Return the key that an SVID makes."""
    bundle = [one.certificate for one in roots or (ROOT,)]
    return verified_key(svid.der, {domain: bundle}, now=now.timestamp())


@pytest.mark.parametrize(
    ("private", "algorithm"), [(p256(), Algorithm.ESP256), (ed25519.Ed25519PrivateKey.generate(), Algorithm.ED25519)]
)
@pytest.mark.parametrize(
    "root",
    [
        ROOT,
        Authority(private=rsa.generate_private_key(65537, 2048)),
        Authority(private=ec.generate_private_key(ec.SECP384R1())),
        Authority(uri=None),
    ],
)
def test_an_svid_makes_a_key(private: ec.EllipticCurvePrivateKey, algorithm: Algorithm, root: Authority) -> None:
    """Of the SPIFFE ID, exactly, for as long as the certificate holds."""
    begin = NOW - timedelta(minutes=1)
    found = looked_at(root.issue(private=private, begin=begin, life=timedelta(minutes=60)), root)
    assert (found.principal, found.algorithm) == (PLANNER, algorithm)
    assert found.key_id == thumbprint_id(found.public)
    assert (found.not_before, found.not_after) == (begin.timestamp(), begin.timestamp() + 3600)


def test_an_authority_may_stand_between() -> None:
    """Whether it is shown by the workload, or is in the bundle without what is above it."""
    between = Authority(above=ROOT, name="between")
    below = Authority(above=between, name="below", path_length=0)
    svid = below.issue()
    svid.chain.append(between.certificate)
    assert looked_at(svid).principal == PLANNER
    assert looked_at(between.issue(), between).principal == PLANNER


def test_a_key_ends_with_the_first_of_those_above_it() -> None:
    """An authority that ends sooner than what it issued takes that with it."""
    between = Authority(above=ROOT, name="between", now=NOW, life=timedelta(minutes=30))
    found = looked_at(between.issue())
    assert found.not_after == (NOW + timedelta(minutes=30)).timestamp()


@pytest.mark.parametrize("days", [-3, 3])
def test_what_has_ended_is_looked_at_as_it_was(days: int) -> None:
    """A message that was signed then may be read later, and has its key; nothing else has changed."""
    root = Authority(now=NOW, life=timedelta(days=30))
    begin = NOW - timedelta(minutes=1)
    found = looked_at(root.issue(begin=begin), root, now=NOW + timedelta(days=days))
    assert found.not_after == (begin + timedelta(hours=1)).timestamp()
    later = NOW + timedelta(days=40)
    with pytest.raises(NotVouchedForError):
        looked_at(root.issue(begin=later, life=timedelta(hours=1)), root, now=NOW)


_OWN = p256()
SELF = Authority(name="workload", private=_OWN).issue(private=_OWN)
_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
_CONSTRAINTS = x509.NameConstraints([x509.UniformResourceIdentifier("acme.example")], None)


def _by_a_workload() -> Svid:
    workload = Authority(above=ROOT, name="between", is_authority=False, uri=PLANNER)
    return workload.issue("/cloud")


REFUSED: list[tuple[str, Callable[[], Svid], str]] = [
    ("self-signed", lambda: SELF, "candidates exhausted"),
    ("of another authority", lambda: Authority(name="root").issue(), "candidates exhausted"),
    ("by another workload", _by_a_workload, "cA must be asserted"),
    ("two URIs", lambda: ROOT.issue(uris=[PLANNER, "spiffe://acme.example/cloud"]), "with 2 URIs: an SVID has one"),
    ("no URI", lambda: ROOT.issue(uris=[]), "with 0 URIs"),
    ("a host only", lambda: ROOT.issue(uris=[], names=[x509.DNSName("acme.example")]), "with 0 URIs"),
    ("no SPIFFE ID", lambda: ROOT.issue(uris=["https://acme.example/planner"]), "is not a SPIFFE ID of a workload"),
    ("the domain's own", lambda: ROOT.issue(uris=["spiffe://acme.example"]), "is not a SPIFFE ID of a workload"),
    ("another domain", lambda: ROOT.issue(uris=["spiffe://other.example/planner"]), "no bundle of trust domain"),
    ("an authority", lambda: ROOT.issue(is_authority=True), "cA must not be asserted"),
    ("signs certificates", lambda: ROOT.issue(usages=_used("key_cert_sign")), "keyCertSign|digital signatures"),
    ("signs revocations", lambda: ROOT.issue(usages=_used("crl_sign")), "for digital signatures, not for"),
    ("signs nothing", lambda: ROOT.issue(usages=usage(key_agreement=True)), "for digital signatures"),
    ("a server only", lambda: ROOT.issue(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), "EKU not found"),
    ("for code", lambda: ROOT.issue(purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), "EKU not found"),
    ("unknown and critical", lambda: ROOT.issue(more=[(_UNKNOWN, True)]), "unaccounted-for critical"),
    ("too deep", lambda: _under(path_length=0), "path length constraint violated"),
    ("between, but no authority", lambda: _between(is_authority=False), "cA must be asserted"),
    ("between, signs no certificates", lambda: _between(signs_certificates=False), "keyCertSign"),
    ("between, of another domain", lambda: _between(uri="spiffe://other.example"), "authority of another trust domain"),
    ("between, a workload's URI", lambda: _between(uri=PLANNER), "authority of another trust domain"),
    ("between, ended", lambda: _between(life=timedelta(minutes=-5)), "not valid at validation time"),
    ("constraints on URIs", lambda: _between(constraints=_CONSTRAINTS), "unsupported name constraint"),
    ("an Ed25519 authority", lambda: _between(private=ed25519.Ed25519PrivateKey.generate()), "Forbidden public key"),
    ("RSA", lambda: ROOT.issue(private=rsa.generate_private_key(65537, 2048)), "kind RSA-2048: only P-256 and Ed25519"),
    ("ML-DSA", lambda: ROOT.issue(private=mldsa.MLDSA44PrivateKey.generate()), "kind MLDSA44PublicKey: only P-256"),
    ("P-384", lambda: ROOT.issue(private=ec.generate_private_key(ec.SECP384R1())), "kind secp384r1: .*ec-p256"),
]


def _used(more: str) -> x509.KeyUsage:
    return usage(digital_signature=True, **{more: True})


def _between(**changed: object) -> Svid:
    return Authority(above=ROOT, name="between", **changed).issue()  # type: ignore[arg-type]  # whatever a case says


def _under(path_length: int) -> Svid:
    between = Authority(above=ROOT, name="between", path_length=path_length)
    svid = Authority(above=between, name="below").issue()
    svid.chain.append(between.certificate)
    return svid


@pytest.mark.parametrize(("made", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_svid_makes_no_key(made: Callable[[], Svid], why: str) -> None:
    """A09: whatever an agent shows, only a trust domain's own authorities make a key of it, and only for workloads."""
    with pytest.raises(NotVouchedForError, match=why):
        looked_at(made())


_AT_THE_BASE = ec.derive_private_key(1, ec.SECP256R1())
"""Its point is the base point, whose first byte is 6b; that of one key in 256 is ff already."""


@pytest.mark.parametrize(
    ("private", "old", "new"),
    [
        (ed25519.Ed25519PrivateKey.generate(), "06032b6570", "06032b6573"),  # another kind, of which no library knows
        (_AT_THE_BASE, "03420004", "03420004ff"),  # no point of the curve
    ],
    ids=["unknown", "no point"],
)
@pytest.mark.parametrize("between", [False, True])
def test_a_key_that_nobody_can_read_is_refused_like_any_other(
    private: Private, old: str, new: str, *, between: bool
) -> None:
    """Promise (A09): what anyone may announce ends in the one error, never in one that stops the reading of others."""
    above = Authority(above=ROOT, name="between", private=private) if between else ROOT
    svid = above.issue() if between else ROOT.issue(private=private)
    at = 1 if between else 0
    begin, end = bytes.fromhex(old), bytes.fromhex(new)
    before, after = svid.der[at].split(begin, 1)
    chain = [*svid.der]
    chain[at] = before + end + after[len(end) - len(begin) :]
    with pytest.raises(NotVouchedForError):
        verified_key(chain, {"acme.example": [ROOT.certificate]}, now=NOW.timestamp())


def test_a_workloads_certificate_in_the_bundle_vouches_for_nobody() -> None:
    """Not even for itself: a bundle with one in it is refused, and if one got in, it would make no key."""
    with pytest.raises(NotVouchedForError, match="vouches for itself"):
        verified_key(SELF.der, {"acme.example": SELF.chain}, now=NOW.timestamp())
    pem = SELF.chain[0].public_bytes(Encoding.PEM)
    with pytest.raises(ConfigurationError, match="'CN=workload' in a bundle is not a certificate authority: remove it"):
        read_authorities(ROOT.pem + pem, "acme.example")


def test_the_bundle_of_one_domain_vouches_for_no_other() -> None:
    """An authority that two domains trust is known by its own name: what it issues for the other one is refused."""
    shared = Authority(name="shared", uri=None)
    other = Authority("other.example", above=shared, name="other")
    bundles = {"acme.example": [shared.certificate], "other.example": [shared.certificate]}
    own = other.issue()
    assert verified_key(own.der, bundles, now=NOW.timestamp()).principal == "spiffe://other.example/planner"
    stolen = other.issue(uris=[PLANNER])
    with pytest.raises(NotVouchedForError, match="authority of another trust domain"):
        verified_key(stolen.der, bundles, now=NOW.timestamp())
    assert looked_at(ROOT.issue()).principal == PLANNER
    with pytest.raises(NotVouchedForError, match=r"no bundle of trust domain 'acme\.example'"):
        verified_key(ROOT.issue().der, {"other.example": [ROOT.certificate]}, now=NOW.timestamp())


def test_an_authority_that_was_taken_out_vouches_for_nobody() -> None:
    """So that is how an authority, and all that it issued, is revoked."""
    svid, second = ROOT.issue(), Authority(name="second")
    assert looked_at(svid, ROOT, second).principal == PLANNER
    with pytest.raises(NotVouchedForError, match="candidates exhausted"):
        looked_at(svid, second)
    with pytest.raises(NotVouchedForError, match="no bundle"):
        verified_key(svid.der, {"acme.example": []}, now=NOW.timestamp())


@pytest.mark.parametrize(
    "chain", [[], [b""], [b"x" * 100], [b"0" * 9000], ROOT.issue().der * 5, [ROOT.issue().der[0][:-1]]]
)
def test_what_is_no_certificate_is_refused(chain: list[bytes]) -> None:
    """Nothing, garbage, too much of it, more than is looked at, half of one."""
    with pytest.raises(NotVouchedForError, match="certificate"):
        verified_key(chain, {"acme.example": [ROOT.certificate]}, now=NOW.timestamp())


def test_extensions_that_cannot_be_read_are_none() -> None:
    """A certificate whose names are garbage has none."""
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\xff\xff")
    with pytest.raises(NotVouchedForError, match="with 0 URIs"):
        looked_at(ROOT.issue(uris=[], more=[(broken, False)]))


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (PLANNER, "acme.example"),
        ("spiffe://a/b/c-d_e.f", "a"),
        ("spiffe://a/...", "a"),
        ("spiffe://a/..b", "a"),
        ("SPIFFE://a/b", None),
        ("spiffe://A/b", None),
        ("spiffe://a", None),
        ("spiffe://a/", None),
        ("spiffe://a/b/", None),
        ("spiffe://a//b", None),
        ("spiffe://a/./b", None),
        ("spiffe://a/..", None),
        ("spiffe://a/b/../c", None),
        ("spiffe://a:1/b", None),
        ("spiffe://u@a/b", None),
        ("spiffe:///b", None),
        ("spiffe://a/b?c", None),
        ("spiffe://a/b#c", None),
        ("spiffe://a/%62", None),
        ("spiffe://a/*", None),
        ("spiffe://a/b\n", None),
        ("spiffe://ä/b", None),
        ("a/b", None),
        ("spiffe://a/" + "b" * 244, "a"),
        ("spiffe://a/" + "b" * 245, None),
    ],
)
def test_a_spiffe_id_has_one_spelling(text: str, domain: str | None) -> None:
    """So no two texts are one workload, and none is longer than a principal."""
    assert trust_domain_of(text) == domain


@pytest.mark.parametrize("name", ["", "ACME", "a/b", "spiffe://a", "a:1"])
def test_a_trust_domain_is_a_name(name: str) -> None:
    """A trust domain is a bare name; anything else raises an error that says what to write."""
    with pytest.raises(ConfigurationError, match=r'write its name, such as "acme\.example"'):
        check_trust_domain(name)
    assert check_trust_domain("acme.example") == "acme.example"


@pytest.mark.parametrize(
    ("pem", "complaint"),
    [
        (b"", "no certificates in PEM"),
        (b"x", "no certificates in PEM"),
        (ROOT.pem[:-40], "no certificates in PEM"),
        (ROOT.pem + b"-----BEGIN PRIVATE KEY-----", "a private key in a bundle"),
        (b"x" * (MAX_BUNDLE_BYTES + 1), "more than 1048576 bytes"),
    ],
)
def test_what_is_no_bundle_is_told(pem: bytes, complaint: str) -> None:
    """With what to write."""
    with pytest.raises(ConfigurationError, match=complaint):
        read_authorities(pem, "acme.example")


def test_a_bundle_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain may be tried against each of its authorities."""
    monkeypatch.setattr(module, "MAX_AUTHORITIES", 1)
    assert read_authorities(ROOT.pem, "acme.example") == (ROOT.certificate,)
    with pytest.raises(ConfigurationError, match="a bundle of 2 certificates: at most 1"):
        read_authorities(ROOT.pem + ROOT.pem, "acme.example")


def test_a_bundle_that_can_vouch_for_nobody_is_told() -> None:
    """Authorities that nothing can be checked by, or of another trust domain: beside a good one they do no harm."""
    odd = Authority(name="odd", private=ed25519.Ed25519PrivateKey.generate())
    foreign = Authority("other.example", name="foreign")
    for pem, complaint in ((odd.pem, "Ed25519 authorities only"), (foreign.pem, "write that of 'acme.example'")):
        with pytest.raises(ConfigurationError, match=complaint):
            read_authorities(pem, "acme.example")
        assert len(read_authorities(ROOT.pem + pem, "acme.example")) == 2
    assert read_authorities(Authority(uri=None).pem, "acme.example")
