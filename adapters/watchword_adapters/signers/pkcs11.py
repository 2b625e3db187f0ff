"""Signs with a private key in a PKCS#11 token: an HSM, a smart card, SoftHSM."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as errors
from pydantic import StringConstraints

from watchword import Algorithm, ConfigurationError, Unavailable
from watchword_adapters.signers.held import HeldKey, HeldOptions, asked
from watchword_adapters.signers.pkcs11_module import Module, NoTokenError, module
from watchword_adapters.signers.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from watchword.algorithms import PublicKey
    from watchword.spi import Context

T = TypeVar("T")

CURVES: Final = {
    Algorithm.ED25519: (KeyType.EC_EDWARDS, b"\x13\x0cedwards25519"),  # PKCS#11 3.0, 6.3.3: a PrintableString
    Algorithm.ESP256: (KeyType.EC, bytes.fromhex("06082a8648ce3d030107")),
}
_POINTS: Final = {34: b"\x04\x20", 67: b"\x04\x41"}
"""The first bytes of a DER octet string that contains a point of Ed25519 or P-256, by its length."""

_OF_THE_KEY: Final = (errors.NoSuchKey, errors.KeyTypeInconsistent, errors.MechanismInvalid)
"""Errors that a new session, or initializing the library again, would not change."""


class Options(HeldOptions):
    """``[signer]`` with ``source = "pkcs11"``: the library, the token's label, and the key's label or id, or both.

    ``pin_env`` or ``pin_file`` says where the user's PIN is.
    """

    module: str
    token: str
    key: str | None = None
    id: Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2})+$")] | None = None
    pin_env: str | None = None
    pin_file: str | None = None


def from_options(options: Mapping[str, Any], context: Context) -> HeldKey:
    """Return the key in the token, once a probe has shown that it signs."""
    chosen = context.validate(Options, options)
    key = _of(chosen, context)
    asked(key.module.workers, key.try_pin, key, chosen.timeout)
    return HeldKey.of(key, chosen, context, workers=key.module.workers)


def generate(options: Mapping[str, Any], context: Context, algorithm: Algorithm) -> HeldKey:
    """Make the key pair that the options name in the token, not extractable; return the key."""
    chosen = context.validate(Options, options)
    key = _of(chosen, context)
    asked(key.module.workers, partial(key.generate, algorithm), key, chosen.timeout)
    return HeldKey.of(key, chosen, context, workers=key.module.workers)


def _of(chosen: Options, context: Context) -> TokenKey:
    if not (chosen.key or chosen.id):
        raise ConfigurationError('key: missing; write the label of the key in the token, or its id = "0a1b"')
    pin = Secret.required("pin", variable=chosen.pin_env, file=chosen.pin_file, context=context)
    return TokenKey(chosen, module(str(context.directory / chosen.module)), pin)


class TokenKey:
    """See ``Custodian``: a key in a token. A session that has ended is opened again, once for each call.

    If that does not help, and the key has signed before, the library is initialized again.
    """

    def __init__(self, options: Options, library: Module, pin: Secret) -> None:
        self.module: Final = library
        self._token = options.token
        self._label = options.key
        self._id = None if options.id is None else bytes.fromhex(options.id)
        self._pin = pin
        self._found: tuple[Any, Any] | None = None

    def try_pin(self) -> None:
        """Log in with the PIN now, if a session is open that used another one."""
        self._again(partial(self.module.try_pin, self._token, self._pin))

    def public(self) -> PublicKey:
        """See ``Custodian``."""
        try:
            return _point(self._again(partial(self._look, ObjectClass.PUBLIC_KEY)))
        except errors.NoSuchKey:
            pass
        try:
            self._again(partial(self._look, ObjectClass.PRIVATE_KEY))
        except errors.NoSuchKey:
            raise self._missing() from None
        raise ConfigurationError(
            f'{self._named()} has no public key beside it: write public = "planner.jwk", the file of its public half'
        )

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """See ``Custodian``."""
        try:
            return self._again(partial(self._signed, data, algorithm))
        except errors.NoSuchKey:
            raise self._missing() from None
        except _OF_THE_KEY as error:
            why = type(error).__name__
            raise ConfigurationError(f"the token does not sign {algorithm.label} with this key: {why}") from None

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(f"no private key {self._named()}; 'watchword key generate' makes one")

    def generate(self, algorithm: Algorithm) -> None:
        """Make the key pair; ConfigurationError if there is one with this name, or the token cannot make it."""
        if algorithm not in CURVES:
            raise ConfigurationError(f"{algorithm.label} keys cannot be made in tokens: use ed25519 or esp256")
        kind, curve = CURVES[algorithm]
        try:
            session = self.module.writable(self._token, self._pin)
            if any(True for _ in session.get_objects(self._template(ObjectClass.PRIVATE_KEY))):
                raise ConfigurationError(f"there is already a private key {self._named()}: choose another name")
            curve_of = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: curve}, local=True)
            curve_of.generate_keypair(
                store=True,
                label=self._label,
                id=self._id,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
        except errors.PKCS11Error as error:
            raise ConfigurationError(f"the token cannot make an {algorithm.name} key: {type(error).__name__}") from None
        finally:
            self.module.close(self._token)

    def _again(self, call: Callable[[], T]) -> T:
        """Return what the call returns; if it fails, try again with a new session: a logged-out one finds no key."""
        try:
            return call()
        except errors.PKCS11Error:
            self.module.close(self._token)
        except NoTokenError:
            pass
        try:
            return self._after_all(call)
        except _OF_THE_KEY:
            raise
        except errors.PKCS11Error as error:
            raise Unavailable(
                "signing",
                f"the token does not answer ({type(error).__name__}): check that it is plugged in and its server runs",
            ) from None

    def _after_all(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except _OF_THE_KEY:
            raise
        except (errors.PKCS11Error, NoTokenError):
            if self._found is None or not self.module.reinitialize():  # at the start it has just been initialized
                raise
        return call()

    def _signed(self, data: bytes, algorithm: Algorithm) -> bytes:
        session = self.module.session(self._token, self._pin)
        if self._found is None or self._found[0] is not session:
            self._found = session, self._signing_key(algorithm)
        key = self._found[1]
        if algorithm is Algorithm.ESP256:
            signature: bytes = key.sign(sha256(data).digest(), mechanism=Mechanism.ECDSA)
        else:
            signature = key.sign(data, mechanism=Mechanism.EDDSA)
        return signature

    def _signing_key(self, algorithm: Algorithm) -> Any:
        """Return the private key; ConfigurationError if it has another algorithm, or is not for signing."""
        key = self._look(ObjectClass.PRIVATE_KEY)
        if key.key_type != CURVES[algorithm][0]:
            raise ConfigurationError(
                f"the key {self._named()} is not an {algorithm.label} key: name the file of its own public half"
            )
        if not hasattr(key, "sign"):  # python-pkcs11 checks CKA_SIGN
            raise ConfigurationError(f"the private key {self._named()} may not sign: make one with CKA_SIGN")
        return key

    def _look(self, kind: ObjectClass) -> Any:
        session = self.module.session(self._token, self._pin)
        try:
            return session.get_key(object_class=kind, label=self._label, id=self._id)
        except errors.MultipleObjectsReturned:
            raise ConfigurationError(f"several keys are {self._named()}: write both key and id") from None

    def _template(self, kind: ObjectClass) -> dict[Attribute, Any]:
        names = {Attribute.LABEL: self._label, Attribute.ID: self._id}
        return {Attribute.CLASS: kind, **{name: value for name, value in names.items() if value}}

    def _named(self) -> str:
        names = [f"labelled {self._label!r}" if self._label else "", f"with id {self._id.hex()}" if self._id else ""]
        return " and ".join(filter(None, names))

    def __repr__(self) -> str:
        return f"pkcs11 token {self._token!r}, key {self._named()}"


def _point(found: Any) -> PublicKey:
    """Return the public key of an object in the token; some have the bare point, others its DER."""
    try:
        raw: bytes = found[Attribute.EC_POINT]
        raw = raw.removeprefix(_POINTS.get(len(raw), b""))
        if found.key_type == KeyType.EC:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, errors.PKCS11Error):  # RSA has no point
        raise ConfigurationError("the token's key is neither Ed25519 nor P-256: make one of these") from None
