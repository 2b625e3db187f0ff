"""Verifies the certificates that an agent announces, and returns the key that its trust domain vouches for.

The chain is checked by ``cryptography``: signatures, validity, basic constraints, path length, key usage and extended
key usage, unknown critical extensions. SPIFFE's further requirements are checked in its callbacks: exactly one URI in
the leaf, a SPIFFE ID of the trust domain whose bundle is used. Two limits follow from that choice: a certificate
authority must have a P-256, P-384, P-521 or RSA key, and name constraints on URIs are refused, not applied.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.verification import Criticality, ExtensionPolicy

from watchword import ConfigurationError, VerificationKey
from watchword.keys import thumbprint_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CHAIN: Final = 4
"""Most certificates that an agent may announce: its own, and those between it and the bundle."""

MAX_CERTIFICATE_BYTES: Final = 8 * 1024
MAX_BUNDLE_BYTES: Final = 1 << 20
MAX_AUTHORITIES: Final = 100
SCHEME: Final = "spiffe://"

_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_LONGEST: Final = 255
"""Most bytes of a principal."""


class NotVouchedForError(ValueError):
    """Certificates that vouch for no key, and why."""


def check_trust_domain(name: str) -> str:
    """Return the name of a trust domain; ConfigurationError if it is invalid."""
    if not _DOMAIN.fullmatch(name):
        raise ConfigurationError(f'{name[:_LONGEST]!r} is not a trust domain: write its name, such as "acme.example"')
    return name


def trust_domain_of(spiffe_id: str) -> str | None:
    """Return the trust domain of a workload's SPIFFE ID; None for any other text.

    Each has only one spelling: lower case, no port, no empty part, no ``.`` and ``..`` (SPIFFE-ID section 2).
    """
    domain, slash, path = spiffe_id.removeprefix(SCHEME).partition("/")
    is_one = spiffe_id.startswith(SCHEME) and len(spiffe_id) <= _LONGEST and _DOMAIN.fullmatch(domain)
    return domain if is_one and _PATH.fullmatch(slash + path) else None


def read_authorities(pem: bytes, domain: str) -> tuple[x509.Certificate, ...]:
    """Parse the authorities of a trust domain's PEM bundle; ConfigurationError says what is wrong with it."""
    if len(pem) > MAX_BUNDLE_BYTES:
        raise ConfigurationError(f"a bundle of more than {MAX_BUNDLE_BYTES} bytes")
    if b"PRIVATE KEY" in pem:
        raise ConfigurationError("a private key in a bundle of public certificates: replace that key")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError("no certificates in PEM: write the output of 'spire-server bundle show'") from None
    return check_authorities(found, domain)


def check_authorities(found: Sequence[x509.Certificate], domain: str) -> tuple[x509.Certificate, ...]:
    """Return the authorities of a trust domain's bundle.

    ConfigurationError for a certificate that may not issue others, and if none of them can vouch for a workload of
    ``domain``.
    """
    if len(found) > MAX_AUTHORITIES:
        raise ConfigurationError(f"a bundle of {len(found)} certificates: at most {MAX_AUTHORITIES}")
    for certificate in found:
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound):
            is_authority = False
        if not is_authority:
            name = certificate.subject.rfc4514_string()[:_LONGEST]
            raise ConfigurationError(f"{name!r} in a bundle is not a certificate authority: remove it")
    if found and all(isinstance(one.public_key(), ed25519.Ed25519PublicKey) for one in found):
        raise ConfigurationError("a bundle of Ed25519 authorities only, which cannot be checked: use P-256 or RSA ones")
    if found and all(_is_foreign(_uris(one), domain) for one in found):
        raise ConfigurationError(f"a bundle of authorities of other trust domains only: write that of {domain!r}")
    return tuple(found)


def verified_key(
    chain: Sequence[bytes], bundles: Mapping[str, Sequence[x509.Certificate]], *, now: float
) -> VerificationKey:
    """Return the key of a workload; ``chain`` is its certificate and those above it, in DER.

    The key is valid as long as all of them are. Certificates that have ended by ``now`` (seconds) are checked at a time
    when all were valid, since what was signed then may be read later. NotVouchedForError says why there is no key.
    """
    leaf, *between = _loaded(chain)
    spiffe_id = _spiffe_id(leaf)
    domain = trust_domain_of(spiffe_id)
    if domain is None:
        raise NotVouchedForError(f"{spiffe_id[:_LONGEST]!r} is not a SPIFFE ID of a workload")
    authorities = bundles.get(domain)
    if not authorities:
        raise NotVouchedForError(f"no bundle of trust domain {domain!r}")
    try:
        public = usable(leaf.public_key())
    except NotVouchedForError:
        raise
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotVouchedForError(f"{spiffe_id}: its key cannot be read: {str(error)[:_LONGEST]}") from None
    begin, end = (moment.timestamp() for moment in (leaf.not_valid_before_utc, leaf.not_valid_after_utc))
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([*authorities]))
        .time(datetime.fromtimestamp(min(max(now, begin), end), UTC))
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=_of_authorities(domain), ee_policy=_of_workloads())
        .build_client_verifier()
    )
    try:
        found = verifier.verify(leaf, between).chain
    except verification.VerificationError as error:
        raise NotVouchedForError(
            f"{spiffe_id}: the bundle of trust domain {domain!r} does not vouch for its certificate:"
            f" {str(error)[:_LONGEST]}"
        ) from None
    if len(found) == 1:  # it is in the bundle itself
        raise NotVouchedForError(f"{spiffe_id}: its certificate vouches for itself")
    return VerificationKey.from_public_key(
        public,
        principal=spiffe_id,
        key_id=thumbprint_id(public),
        not_before=max(int(one.not_valid_before_utc.timestamp()) for one in found),
        not_after=min(int(one.not_valid_after_utc.timestamp()) for one in found),
    )


def usable(public: object) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    """Return a workload's public key; NotVouchedForError, with its kind, if it cannot sign messages."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return public
    if isinstance(public, rsa.RSAPublicKey):
        kind = f"RSA-{public.key_size}"
    elif isinstance(public, ec.EllipticCurvePublicKey):
        kind = public.curve.name
    else:
        kind = type(public).__name__
    raise NotVouchedForError(
        f"an SVID with a key of kind {kind}: only P-256 and Ed25519 sign messages; in SPIRE's agent.conf write"
        ' workload_x509_svid_key_type = "ec-p256"'
    )


def _loaded(chain: Sequence[bytes]) -> list[x509.Certificate]:
    if not 1 <= len(chain) <= MAX_CHAIN or max(map(len, chain)) > MAX_CERTIFICATE_BYTES:
        raise NotVouchedForError(f"1 to {MAX_CHAIN} certificates of at most {MAX_CERTIFICATE_BYTES} bytes make a chain")
    try:
        return [x509.load_der_x509_certificate(one) for one in chain]
    except ValueError:
        raise NotVouchedForError("not a certificate") from None


def _spiffe_id(leaf: x509.Certificate) -> str:
    """Return the only URI of a certificate, which selects the bundle and is verified with it."""
    uris = _uris(leaf)
    if len(uris) != 1:
        raise NotVouchedForError(f"a certificate with {len(uris)} URIs: an SVID has one")
    return uris[0]


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _is_foreign(uris: Sequence[str], domain: str) -> bool:
    """Return True if an authority with these URIs is of another trust domain."""
    return any(uri.startswith(SCHEME) and uri != SCHEME + domain for uri in uris)


def _of_workloads() -> ExtensionPolicy:
    """Return the extensions of an SVID (X509-SVID section 4), in addition to those of client certificates."""
    return (
        ExtensionPolicy.webpki_defaults_ee()
        .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_messages)
    )


def _signs_messages(_policy: object, _certificate: x509.Certificate, usage: x509.KeyUsage) -> None:
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise ValueError("an SVID's key is for digital signatures, not for certificates")


def _of_authorities(domain: str) -> ExtensionPolicy:
    """Return the extensions of authorities: one of another trust domain must not vouch for this domain."""

    def is_of_domain(
        _policy: object, _certificate: x509.Certificate, names: x509.SubjectAlternativeName | None
    ) -> None:
        uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
        if _is_foreign(uris, domain):
            raise ValueError("an authority of another trust domain")

    return (
        ExtensionPolicy.webpki_defaults_ca()
        .may_be_present(x509.SubjectKeyIdentifier, Criticality.AGNOSTIC, None)
        .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, is_of_domain)
    )
