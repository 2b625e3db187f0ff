"""The signature algorithms, each told of once: its names, its sizes, and how it signs and verifies.

An algorithm belongs to a key, never to a message. ML-DSA (FIPS 204, RFC 9964) is there where ``cryptography`` has it.
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
"""Bytes that an envelope may have beside its signature and the signature's length."""

_LEAST_READ: Final = 128
"""Bytes of a signature that are read, and are bad only then, whatever the algorithm."""

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
_FIELD: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _FIELD) % _FIELD  # RFC 8032 section 5.1
_ML_DSA_OIDS: Final = ("2.16.840.1.101.3.4.3.17", "2.16.840.1.101.3.4.3.18")
_SEED_BYTES: Final = 32  # FIPS 204, algorithm 22: what stands in front of t1
_POLYNOMIAL_BYTES: Final = 320
_EACH_NUMBER: Final = sum([1 << 10 * at for at in range(256)])
_LEAST_FAR: Final = 96
_TOO_OLD: Final = (
    "this installation of cryptography has no ML-DSA: pip install 'cryptography>=48'; one that was built on OpenSSL"
    " before 3.5 has none either"
)


class Algorithm(IntEnum):
    """Fully specified COSE algorithms (RFC 9864, RFC 9964); an algorithm belongs to a key, never to a message."""

    ED25519 = -19
    ESP256 = -9
    ML_DSA_44 = -48
    ML_DSA_65 = -49

    @property
    def label(self) -> str:
        """The name that people type and read, as ``ml-dsa-44``."""
        return self.name.lower().replace("_", "-")


class Limits(NamedTuple):
    """The most bytes of an envelope and of its signature that are read."""

    envelope: int
    signature: int


class Scheme(ABC):
    """One algorithm.

    ``signature_bytes`` is the length of a signature, ``batch`` how many messages share one unless somebody says
    otherwise: twice as many halve its share of each, which grows by 46 characters.
    """

    algorithm: Algorithm
    signature_bytes: int
    batch: int

    @property
    def limits(self) -> Limits:
        """What is read of an envelope that claims this algorithm."""
        size = self.signature_bytes
        return Limits(_BESIDE_SIGNATURE + len(head(BYTES, size)) + size, max(_LEAST_READ, size))

    @abstractmethod
    def has(self, key: object, *, private: bool) -> bool:
        """Tell whether this is a key of this kind, and of this half."""

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
        """Tell whether a signature of the right length is that of ``data``."""

    @abstractmethod
    def members(self, public: Any) -> dict[str, str]:
        """Return a public key as the members of a JWK that its thumbprint covers (RFC 7638 section 3.2)."""

    @abstractmethod
    def fits(self, members: Mapping[str, object]) -> bool:
        """Tell whether a JWK is of this kind."""

    @abstractmethod
    def read(self, members: Mapping[str, object]) -> Any:
        """Return the public key of a JWK of this kind; ConfigurationError says what is wrong with it."""

    def canonical(self, signature: bytes) -> bytes:
        """Return the one of a signature's equal forms that verifies."""
        return signature

    @property
    def is_available(self) -> bool:
        """Whether ``cryptography`` has it here."""
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
        if s > _P256_ORDER // 2:  # the other half would be a second signature of the same message
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
            raise ConfigurationError("x and y are no point of P-256") from None

    def canonical(self, signature: bytes) -> bytes:
        s = int.from_bytes(signature[32:])  # few KMS care
        return signature[:32] + min(s, _P256_ORDER - s).to_bytes(32) if s < _P256_ORDER else signature


class _MlDsa(Scheme):
    """ML-DSA as such, with an empty context: neither HashML-DSA nor a hash made before."""

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
"""What is read at most, before it is known which algorithm an envelope claims."""


def limits_of(algorithm: int) -> Limits:
    """Return what is read of an envelope that claims this algorithm, which may be none of ours."""
    return _LIMITS.get(algorithm, _OTHER)


def scheme_of(key: object, *, private: bool = False) -> Scheme:
    """Return the scheme of a public or a private key; ConfigurationError for one of another kind."""
    for scheme in SCHEMES.values():
        if scheme.has(key, private=private):
            return scheme
    half = "private " if private else ""
    raise ConfigurationError(f"{type(key).__name__}: use an Ed25519, P-256, ML-DSA-44 or ML-DSA-65 {half}key")


def what_is_missing(error: Exception) -> str | None:
    """Return what to do where ``cryptography`` does not know an ML-DSA key; None if its error says anything else."""
    return _TOO_OLD if any(oid in str(error) for oid in _ML_DSA_OIDS) else None


def signature_from_der(der: bytes) -> bytes:
    """Return the ESP256 signature, 64 bytes with low s, that ASN.1 holds; ValueError for what is none."""
    try:
        r, s = decode_dss_signature(der)
        return SCHEMES[Algorithm.ESP256].canonical(r.to_bytes(32) + s.to_bytes(32))
    except OverflowError:  # negative, or of a larger curve
        raise ValueError("not a signature of P-256") from None


def _ml_dsa() -> Any:
    """Return the module of ``cryptography`` that has it; None before its version 47."""
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - older ones have none
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
    """Refuse what is no point, not canonical, or of small order: under such a key anybody's signature verifies."""
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    ysq = y * y % _FIELD
    xsq = (ysq - 1) * pow(_D * ysq + 1, -1, _FIELD) % _FIELD
    on_curve = y < _FIELD and pow(xsq, (_FIELD - 1) // 2, _FIELD) in {0, 1}
    # Order 1, 2 and 4 have x = 0 or y = 0; doubling a point of order 8 gives y = 0, which is x^2 = -y^2.
    if not on_curve or xsq == 0 or y == 0 or (xsq + ysq) % _FIELD == 0:
        raise ConfigurationError("Ed25519 public key: not a point of full order; generate a new key")


def _refuse_short(raw: bytes) -> None:
    """Refuse an ML-DSA key with a polynomial that is close to 0: with such a t1 anybody's signature verifies.

    Its 256 numbers of 10 bits are drawn evenly for an honest key; 3 in 4 of them lie in 128 to 895, and those do not
    whose three upper bits are alike.
    """
    for at in range(_SEED_BYTES, len(raw), _POLYNOMIAL_BYTES):
        numbers = int.from_bytes(raw[at : at + _POLYNOMIAL_BYTES], "little")
        changes = numbers ^ numbers >> 1
        if ((changes >> 7 | changes >> 8) & _EACH_NUMBER).bit_count() < _LEAST_FAR:
            raise ConfigurationError("ML-DSA public key: close to 0, so that anybody could sign; generate a new key")
