"""A private key in AWS KMS."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import StringConstraints

from watchword import Algorithm, ConfigurationError, Unavailable
from watchword.algorithms import signature_from_der
from watchword_adapters.signers.held import HeldKey, HeldOptions
from watchword_adapters.signers.worker import PerProcess, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from watchword.algorithms import PublicKey
    from watchword.spi import Context

_AT_ONCE: Final = 4
REMEDIES: Final = {
    "AccessDeniedException": "the credentials may not use this key: the policy needs kms:Sign and kms:GetPublicKey",
    "DisabledException": "the key is disabled",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidKeyUsageException": "the key is not for signing: make one with key usage SIGN_VERIFY",
    "KMSInvalidStateException": "the key is disabled, or pending deletion",
    "NotFoundException": "there is no such key in this region and account",
    "UnrecognizedClientException": "the credentials are unknown",
    "UnsupportedOperationException": "the key has no public half: use ECC_NIST_P256 or ECC_NIST_EDWARDS25519",
    "ValidationException": "the key does not support this signature: use ECC_NIST_P256 or ECC_NIST_EDWARDS25519",
}
"""Faults that only a person can fix, by error code."""


class Options(HeldOptions):
    """``[signer]`` with ``source = "aws_kms"``: a key by its id, ARN or alias; an alias is looked up at the start only.

    The AWS SDK finds the credentials, and ``region`` if it is left out. ``endpoint`` is a private endpoint, or one for
    tests.
    """

    key: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    region: str | None = None
    endpoint: str | None = None


def from_options(options: Mapping[str, Any], context: Context) -> HeldKey:
    """Return the key in KMS, once a probe has shown that it signs."""
    chosen = context.validate(Options, options)
    return HeldKey.of(KmsKey(chosen), chosen, context, workers=Workers(_AT_ONCE))


class KmsKey:
    """See ``Custodian``: a key in KMS. The SDK tries a call twice, since connections end and KMS throttles."""

    def __init__(self, options: Options) -> None:
        self._name = options.key
        self._key = options.key
        self._client = PerProcess(partial(_client, options), lambda client: client.close())
        self._client.get()

    def public(self) -> PublicKey:
        """See ``Custodian``; the key that an alias names now is used from now on."""
        told = _answer(lambda: self._client.get().get_public_key(KeyId=self._key))
        try:
            public = load_der_public_key(told["PublicKey"])
        except (KeyError, TypeError, ValueError):
            raise Unavailable("signing", "the answer is not from KMS") from None
        self._key = str(told.get("KeyId", self._key))
        return public  # type: ignore[return-value]  # VerificationKey refuses other kinds

    def sign(self, data: bytes, algorithm: Algorithm) -> bytes:
        """See ``Custodian``."""
        if algorithm is Algorithm.ED25519:
            how = {"Message": data, "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
        else:
            how = {"Message": sha256(data).digest(), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
        signature = _answer(lambda: self._client.get().sign(KeyId=self._key, **how)).get("Signature")
        if not isinstance(signature, bytes):
            raise Unavailable("signing", "the answer is not from KMS")
        if algorithm is Algorithm.ED25519:
            return signature
        try:
            return signature_from_der(signature)
        except ValueError:
            raise Unavailable("signing", "the answer is not from KMS") from None

    def __repr__(self) -> str:
        return f"aws_kms key {self._name}"


def _answer(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return call()
    except NoCredentialsError:
        raise ConfigurationError("the AWS SDK finds no credentials here") from None
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
    if code in REMEDIES:
        raise ConfigurationError(f"{REMEDIES[code]} ({code})")
    raise Unavailable("signing", f"KMS answers {code[:64]}")


def _client(options: Options) -> Any:
    config = Config(
        connect_timeout=options.timeout,
        read_timeout=options.timeout,
        retries={"total_max_attempts": 2, "mode": "standard"},
        max_pool_connections=_AT_ONCE,
    )
    try:
        # A separate session: the SDK's default one is shared with the application, and is not thread-safe.
        session = boto3.session.Session()
        return session.client("kms", region_name=options.region, endpoint_url=options.endpoint, config=config)
    except NoRegionError:
        raise ConfigurationError('region: missing; write region = "eu-central-1"') from None
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"AWS SDK: {type(error).__name__}: check region, endpoint and profile") from None
