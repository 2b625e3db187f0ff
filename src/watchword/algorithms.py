"""The signature algorithms: for each one its names and sizes, how it signs and verifies, and its JWK form.

An algorithm belongs to a key, never to a message. ML-DSA (FIPS 204, RFC 9964) needs a ``cryptography`` that supports
it. Keys here are objects of ``cryptography``; their owners, ids and validity are in ``keys``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from watchword import engine
from watchword.cbor import BYTES, head
from watchword.errors import ConfigurationError
from watchword.strict import base64url, from_base64url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import mldsa

PublicKey: TypeAlias = (
    "ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey"
)

_BESIDE_SIGNATURE: Final = 4030
"""Bytes that an envelope may have besides its signature and the signature's length."""

_LEAST_READ: Final = 128
"""Length up to which any signature parses: one of the wrong length is BAD_SIGNATURE then, not MALFORMED."""

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
_FIELD: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _FIELD) % _FIELD  # RFC 8032 section 5.1
_ML_DSA_OIDS: Final = ("2.16.840.1.101.3.4.3.17", "2.16.840.1.101.3.4.3.18")
_SEED_BYTES: Final = 32  # FIPS 204, algorithm 22: the seed in front of t1
_POLYNOMIAL_BYTES: Final = 320
_EACH_NUMBER: Final = sum([1 << 10 * at for at in range(256)])
_LEAST_FAR: Final = 96
_TOO_OLD: Final = (
    "this installation of cryptography does not support ML-DSA: pip install 'cryptography>=48', built with OpenSSL 3.5"
    " or later"
)


class Algorithm(IntEnum):
    """Fully specified COSE algorithms (RFC 9864, RFC 9964); an algorithm belongs to a key, never to a message."""

    ED25519 = -19
    ESP256 = -9
    ML_DSA_44 = -48
    ML_DSA_65 = -49

    @property
    def label(self) -> str:
        """The name for people to type and read, as ``ml-dsa-44``."""
        return self.name.lower().replace("_", "-")


class Limits(NamedTuple):
    """The greatest lengths of an envelope and of its signature that are read, in bytes."""

    envelope: int
    signature: int


class Scheme(ABC):
    """One algorithm.

    ``signature_bytes`` is the length of a signature. ``batch`` is the default for how many messages share one: to
    double it halves each message's share of the signature, and adds 46 characters of proof to each envelope.
    """

    algorithm: Algorithm
    signature_bytes: int
    batch: int

    @property
    def limits(self) -> Limits:
        """The limits for an envelope that claims this algorithm."""
        size = self.signature_bytes
        return Limits(_BESIDE_SIGNATURE + len(head(BYTES, size)) + size, max(_LEAST_READ, size))

    @abstractmethod
    def has(self, key: object, *, private: bool) -> bool:
        """Return True if this is a private or public key, as asked, of this algorithm."""

    @abstractmethod
    def raw(self, public: Any) -> bytes:
        """Return the bytes of a public key; ConfigurationError for a weak one."""

    @abstractmethod
    def generate(self) -> Any:
        """Return a new private key."""

    @abstractmethod
    def sign(self, private: Any, data: bytes) -> bytes:
        """Return the signature of ``data``."""

    @abstractmethod
    def verifies(self, public: Any, signature: bytes, data: bytes) -> bool:
        """Return True if ``signature``, which has the right length, is the signature of ``data``."""

    @abstractmethod
    def members(self, public: Any) -> dict[str, str]:
        """Return a public key as the members of a JWK that its thumbprint covers (RFC 7638 section 3.2)."""

    @abstractmethod
    def fits(self, members: Mapping[str, object]) -> bool:
        """Return True if a JWK is for this algorithm."""

    @abstractmethod
    def read(self, members: Mapping[str, object]) -> Any:
        """Return the public key of a JWK for this algorithm; ConfigurationError says what is wrong with it."""

    def canonical(self, signature: bytes) -> bytes:
        """Return the only form of a signature that verifies, where an algorithm has equivalent ones."""
        return signature

    @property
    def is_available(self) -> bool:
        """Whether this installation of ``cryptography`` supports it."""
        return True


class _Ed25519(Scheme):
    algorithm = Algorithm.ED25519
    signature_bytes = 64
    batch = 64

    def has(self, key: object, *, private: bool) -> bool:
        return isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey)

    def raw(self, public: Any) -> bytes:
        raw: bytes = public.public_bytes_raw()
        _refuse_weak(raw)
        return raw

    def generate(self) -> Any:
        return ed25519.Ed25519PrivateKey.generate()

    def sign(self, private: Any, data: bytes) -> bytes:
        signature: bytes = private.sign(data)
        return signature

    def verifies(self, public: Any, signature: bytes, data: bytes) -> bool:
        if (native := engine.native()) is not None:
            return native.verifies(public.public_bytes_raw(), signature, data)
        return _holds(public, signature, data)

    def members(self, public: Any) -> dict[str, str]:
        return {"crv": "Ed25519", "kty": "OKP", "x": base64url(public.public_bytes_raw())}

    def fits(self, members: Mapping[str, object]) -> bool:
        return _names(members, "kty", "crv") == ("OKP", "Ed25519") and _has_alg(members, "Ed25519", "EdDSA")

    def read(self, members: Mapping[str, object]) -> Any:
        return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(members, "x", 32))


class _Esp256(Scheme):
    algorithm = Algorithm.ESP256
    signature_bytes = 64
    batch = 64

    def has(self, key: object, *, private: bool) -> bool:
        kind = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
        return isinstance(key, kind) and isinstance(key.curve, ec.SECP256R1)

    def raw(self, public: Any) -> bytes:
        point: bytes = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return point

    def generate(self) -> Any:
        return ec.generate_private_key(ec.SECP256R1())

    def sign(self, private: Any, data: bytes) -> bytes:
        return signature_from_der(private.sign(data, ec.ECDSA(hashes.SHA256())))

    def verifies(self, public: Any, signature: bytes, data: bytes) -> bool:
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        if s > _P256_ORDER // 2:  # else each signature would have a second valid form (malleability)
            return False
        return _holds(public, encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))

    def members(self, public: Any) -> dict[str, str]:
        numbers = public.public_numbers()
        x, y = (base64url(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def fits(self, members: Mapping[str, object]) -> bool:
        return _names(members, "kty", "crv") == ("EC", "P-256") and _has_alg(members, "ES256", "ESP256")

    def read(self, members: Mapping[str, object]) -> Any:
        point = b"\x04" + _bytes(members, "x", 32) + _bytes(members, "y", 32)
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise ConfigurationError("x and y are not a point on P-256") from None

    def canonical(self, signature: bytes) -> bytes:
        s = int.from_bytes(signature[32:])  # few KMSs return a low s
        return signature[:32] + min(s, _P256_ORDER - s).to_bytes(32) if s < _P256_ORDER else signature


class _MlDsa(Scheme):
    """Pure ML-DSA with an empty context: neither HashML-DSA nor a message that was hashed first."""

    batch = 256

    def __init__(self, algorithm: Algorithm, name: str, public_bytes: int, signature_bytes: int) -> None:
        self.algorithm = algorithm
        self.signature_bytes = signature_bytes
        self._name = name
        self._public_bytes = public_bytes

    def has(self, key: object, *, private: bool) -> bool:
        module = _ml_dsa()
        return module is not None and isinstance(key, self._class(module, "PrivateKey" if private else "PublicKey"))

    def raw(self, public: Any) -> bytes:
        raw: bytes = public.public_bytes_raw()
        _refuse_short(raw)
        return raw

    def generate(self) -> Any:
        try:
            return self._class(_needed(), "PrivateKey").generate()
        except UnsupportedAlgorithm:
            raise ConfigurationError(_TOO_OLD) from None

    def sign(self, private: Any, data: bytes) -> bytes:
        signature: bytes = private.sign(data)
        return signature

    def verifies(self, public: Any, signature: bytes, data: bytes) -> bool:
        return _holds(public, signature, data)

    def members(self, public: Any) -> dict[str, str]:
        return {"alg": self._name, "kty": "AKP", "pub": base64url(public.public_bytes_raw())}

    def fits(self, members: Mapping[str, object]) -> bool:
        return _names(members, "kty", "alg") == ("AKP", self._name)

    def read(self, members: Mapping[str, object]) -> Any:
        return self._public(_bytes(members, "pub", self._public_bytes))

    @property
    def is_available(self) -> bool:
        try:
            self._public(bytes(self._public_bytes))
        except ConfigurationError:
            return False
        return True

    def _public(self, raw: bytes) -> Any:
        try:
            return self._class(_needed(), "PublicKey").from_public_bytes(raw)
        except UnsupportedAlgorithm:
            raise ConfigurationError(_TOO_OLD) from None

    def _class(self, module: Any, half: str) -> Any:
        return getattr(module, f"MLDSA{self._name[-2:]}{half}")


SCHEMES: Final[Mapping[Algorithm, Scheme]] = {
    scheme.algorithm: scheme
    for scheme in (
        _Ed25519(),
        _Esp256(),
        _MlDsa(Algorithm.ML_DSA_44, "ML-DSA-44", 1312, 2420),
        _MlDsa(Algorithm.ML_DSA_65, "ML-DSA-65", 1952, 3309),
    )
}

_LIMITS: Final[Mapping[int, Limits]] = {int(name): scheme.limits for name, scheme in SCHEMES.items()}
_OTHER: Final = SCHEMES[Algorithm.ED25519].limits
LARGEST: Final = Limits(*map(max, zip(*_LIMITS.values(), strict=True)))
"""The limits that apply before the claimed algorithm is known."""


def limits_of(algorithm: int) -> Limits:
    """Return the limits for an envelope that claims this algorithm, which may be one that we do not support."""
    return _LIMITS.get(algorithm, _OTHER)


def scheme_of(key: object, *, private: bool = False) -> Scheme:
    """Return the scheme of a public or a private key; ConfigurationError for an unsupported one."""
    for scheme in SCHEMES.values():
        if scheme.has(key, private=private):
            return scheme
    half = "private " if private else ""
    raise ConfigurationError(f"{type(key).__name__}: use an Ed25519, P-256, ML-DSA-44 or ML-DSA-65 {half}key")


def what_is_missing(error: Exception) -> str | None:
    """Return what to install if ``cryptography`` failed because it lacks ML-DSA; None for any other error."""
    return _TOO_OLD if any(oid in str(error) for oid in _ML_DSA_OIDS) else None


def signature_from_der(der: bytes) -> bytes:
    """Return the ESP256 signature, 64 bytes with low s, from its DER form; ValueError if it is not one."""
    try:
        r, s = decode_dss_signature(der)
        return SCHEMES[Algorithm.ESP256].canonical(r.to_bytes(32) + s.to_bytes(32))
    except OverflowError:  # negative, or from a larger curve
        raise ValueError("not a P-256 signature") from None


def _ml_dsa() -> Any:
    """Return the ML-DSA module of ``cryptography``; None before its version 47."""
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - older versions lack it
    except ImportError:
        return None
    return mldsa


def _needed() -> Any:
    module = _ml_dsa()
    if module is None:
        raise ConfigurationError(_TOO_OLD)
    return module


def _holds(public: Any, signature: bytes, data: bytes, *how: object) -> bool:
    try:
        public.verify(signature, data, *how)
    except InvalidSignature:
        return False
    return True


def _names(members: Mapping[str, object], *names: str) -> tuple[object, ...]:
    return tuple([members.get(name) for name in names])


def _has_alg(members: Mapping[str, object], *names: str) -> bool:
    return members.get("alg") in {None, *names} if isinstance(members.get("alg"), str | None) else False


def _bytes(members: Mapping[str, object], name: str, size: int) -> bytes:
    try:
        raw = from_base64url(members.get(name))
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise ConfigurationError(f'"{name}" is not {size} bytes of base64url')
    return raw


def _refuse_weak(raw: bytes) -> None:
    """Refuse a key that is not a canonical point, or has a small order: anyone could forge signatures for it."""
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    ysq = y * y % _FIELD
    xsq = (ysq - 1) * pow(_D * ysq + 1, -1, _FIELD) % _FIELD
    on_curve = y < _FIELD and pow(xsq, (_FIELD - 1) // 2, _FIELD) in {0, 1}
    # Points of order 1, 2 and 4 have x = 0 or y = 0; doubling a point of order 8 gives y = 0, so x^2 = -y^2.
    if not on_curve or xsq == 0 or y == 0 or (xsq + ysq) % _FIELD == 0:
        raise ConfigurationError("Ed25519 public key: not a point of full order; generate a new key")


def _refuse_short(raw: bytes) -> None:
    """Refuse an ML-DSA key with a polynomial in t1 that is close to 0: anyone could forge signatures for it.

    In an honest key its 256 coefficients of 10 bits are uniformly distributed; 3 in 4 of them are from 128 to 895. The
    others are those whose three high bits are equal.
    """
    for at in range(_SEED_BYTES, len(raw), _POLYNOMIAL_BYTES):
        numbers = int.from_bytes(raw[at : at + _POLYNOMIAL_BYTES], "little")
        changes = numbers ^ numbers >> 1
        if ((changes >> 7 | changes >> 8) & _EACH_NUMBER).bit_count() < _LEAST_FAR:
            raise ConfigurationError("ML-DSA public key: close to 0, so anyone could sign; generate a new key")
