"""Signs messages: for each one it returns the header to add; up to 4096 messages share one signature.

It takes a private key, or a back-end that has one (``keys.SigningBackend``). It sends nothing; the claims that it
signs are built in ``unsigned``.
"""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import engine
from watchword.algorithms import SCHEMES
from watchword.encoding import SignedTree, characters, encode_protected, overhead
from watchword.envelope import MAX_TREE_SIZE
from watchword.errors import ConfigurationError, SigningError, Unavailable
from watchword.keys import (
    NamedBackend,
    RotatingBackend,
    SigningBackend,
    SigningKey,
    check_key_id,
)
from watchword.message import ENVELOPE_HEADER, TRACE_HEADERS, Channel, Header, Message, check_realm, is_principal
from watchword.plugged import answer
from watchword.unsigned import ClaimsBuilder, drafts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from watchword_native import Tree

    from watchword.algorithms import Algorithm, Scheme
    from watchword.unsigned import Draft, UnsignedEnvelope


class Signed(NamedTuple):
    """A signed message's header to add, its id (16 bytes) and its issue time (seconds since the epoch)."""

    header: Header
    id: bytes
    issued_at: int


class _By(NamedTuple):
    """A signing key and the protected headers of its envelopes, in one value so that a switch is atomic."""

    backend: SigningBackend
    key_id: bytes
    scheme: Scheme
    direct: bytes
    batched: bytes


class Signer:
    """Signs messages of one principal in one realm.

    ``key`` is a SigningKey, or any SigningBackend together with the ``key_id`` and ``algorithm`` of its public half. A
    RotatingBackend replaces itself by new keys. ``clock`` returns seconds since the epoch. ``batch`` is how many
    messages may share a signature: 1 to 4096, by default 64, or 256 with ML-DSA. Any thread may call ``hold`` and
    ``switch``.
    """

    def __init__(
        self,
        *,
        realm: str,
        principal: str,
        key: SigningBackend,
        clock: Callable[[], float],
        key_id: bytes | None = None,
        algorithm: Algorithm | None = None,
        uncovered: Iterable[str] = TRACE_HEADERS,
        batch: int | None = None,
    ) -> None:
        if not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        if isinstance(key, SigningKey):
            key_id, algorithm = key_id or key.key_id, key.algorithm
        if key_id is None or algorithm is None:
            raise ConfigurationError("a signing back-end needs the key_id and algorithm of its public key")
        self._by = _sign_by(key, key_id, algorithm)
        scheme = self._by.scheme
        batch = scheme.batch if batch is None else batch
        if type(batch) is not int or not 1 <= batch <= MAX_TREE_SIZE:
            raise ConfigurationError(f"batch of {batch} messages: choose 1 to {MAX_TREE_SIZE}")
        self.realm: Final = check_realm(realm)
        self.principal: Final = principal
        self.batch: Final = batch
        self._builder = ClaimsBuilder(
            principal=principal,
            realm=realm,
            clock=clock,
            uncovered=frozenset(uncovered),
            overhead=overhead(self._by.batched, (batch - 1).bit_length(), scheme.signature_bytes),
            most=scheme.limits.envelope,
        )
        self._builder.ends = _end_of(key)
        self.max_characters: Final = characters(scheme.limits.envelope)
        # For adapters that sign many messages, and save creating a Message for each.
        self.prepare_parts: Final = self._builder.prepare
        self._holds: Final = dict[str, str]()
        self._holding: Final = Lock()
        if isinstance(key, RotatingBackend):
            key.serve(self)

    @property
    def key_id(self) -> bytes:
        """The id of the current signing key."""
        return self._by.key_id

    def hold(self, why: str | None, *, by: str = "control") -> None:
        """Stop signing: raise SigningError with ``why`` instead. None lifts the hold of ``by``, and no other one.

        This protects nobody from a process that was taken over: readers enforce their own rules.
        """
        with self._holding:
            if why is None:
                self._holds.pop(by, None)
            else:
                self._holds[by] = why
            self._builder.held = next(iter(self._holds.values()), None)

    def switch(self, key: NamedBackend) -> None:
        """Sign with another key from now on; ConfigurationError if its id or signatures have another length.

        The length of an envelope is fixed when a message is prepared, before it is known which key will sign it.
        """
        if len(key.key_id) != len(self.key_id):
            raise ConfigurationError("signer: the new key's id has another length: restart to sign with it")
        if SCHEMES[key.algorithm].signature_bytes != self._by.scheme.signature_bytes:
            raise ConfigurationError("signer: the new key's signatures have another length: restart to sign with it")
        self._by = _sign_by(key, key.key_id, key.algorithm)
        self._builder.ends = _end_of(key)

    async def sign(
        self,
        message: Message,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
    ) -> Signed:
        """Return the header that makes ``message`` verifiable on its channel, and nowhere else.

        Options as for ``prepare``. Unavailable if the signing back-end fails.
        """
        unsigned = self.prepare(message, recipient=recipient, expires_at=expires_at, in_reply_to=in_reply_to)
        (signed,) = await self.sign_prepared([unsigned])
        return signed

    async def sign_many(
        self, messages: Iterable[Message], *, recipient: str | None = None, expires_at: int | None = None
    ) -> list[Signed]:
        """Sign messages, up to ``batch`` of them with one signature; each can be verified without the others.

        Options and errors as for ``sign``; if one message cannot be signed, none are.
        """
        given = list(messages)
        drafts: list[Draft] = []
        while left := given[len(drafts) :]:
            drafts.append(self.prepare(left[0], recipient=recipient, expires_at=expires_at).draft)
            alike = self._builder.alike(given, len(drafts), recipient) if expires_at is None else []
            drafts += alike
            if not alike:  # else ids would be generated for messages that are not drafted, again and again
                others = [self.prepare(one, recipient=recipient, expires_at=expires_at) for one in left[1:]]
                drafts += drafts_of(others)
        return await self._signed(drafts)

    def prepare(
        self,
        message: Message,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
    ) -> UnsignedEnvelope:
        """Return the claims to sign for ``message``, issued now.

        ``recipient`` is the only principal that may accept it; ``expires_at`` is in seconds since the epoch;
        ``in_reply_to`` is the id of the request that it answers. SigningError if the bus would change the message, or a
        limit is exceeded.
        """
        try:
            _check_bytes(message.value, message.key)
            return self.prepare_parts(
                message.channel, message.value, message.key, message.headers, message.partition,
                recipient, expires_at, in_reply_to, message.reply_to,
            )  # fmt: skip
        except (AttributeError, TypeError, ValueError):  # types are checked only here, so that valid calls do not pay
            mistake = _wrong_type(message, recipient, in_reply_to)
            if mistake is None:
                raise
            raise SigningError(mistake) from None

    async def sign_prepared(self, envelopes: Sequence[UnsignedEnvelope]) -> list[Signed]:
        """Sign what this signer prepared, up to ``batch`` with one signature; Unavailable if the back-end fails."""
        return await self._signed(drafts_of(envelopes))

    async def _signed(self, drafts: Sequence[Draft]) -> list[Signed]:
        values: list[bytes] = []
        by = self._by  # one key for all: while a signature is awaited, the signer may switch to another key
        for tree in self._trees([claims for claims, _, _ in drafts], by):
            try:
                signature: object = await answer(by.backend.sign(tree.data))
            except Unavailable as error:  # its detail says more than its type
                raise Unavailable("signing", error.detail) from error
            except Exception as error:
                raise Unavailable("signing", type(error).__name__) from error
            if not isinstance(signature, bytes) or len(signature) != by.scheme.signature_bytes:
                raise Unavailable("signing", f"the back-end did not return {by.scheme.signature_bytes} bytes")
            values += tree.values(by.scheme.canonical(signature))
        return [
            Signed((ENVELOPE_HEADER, value), message_id, issued_at)
            for (_, message_id, issued_at), value in zip(drafts, values, strict=True)
        ]

    def sign_now(self, envelopes: Sequence[UnsignedEnvelope]) -> list[bytes]:
        """Sign as ``sign_prepared`` does, but without awaiting, and return the header's value for each.

        ConfigurationError unless ``in_memory``.
        """
        by = self._by
        backend = by.backend
        if not isinstance(backend, SigningKey):
            raise ConfigurationError("only a SigningKey signs synchronously: await sign_prepared() instead")
        trees = self._trees([claims for claims, _, _ in drafts_of(envelopes)], by)
        return [value for tree in trees for value in tree.values(backend.sign_now(tree.data))]

    @property
    def in_memory(self) -> bool:
        """Whether the private key is in this process's memory, so that signing needs no I/O."""
        return isinstance(self._by.backend, SigningKey)

    def _trees(self, claims: list[bytes], by: _By) -> Iterator[SignedTree | Tree]:
        """Split claims, in order, into as few trees as possible, whose sizes differ by at most one.

        Readers are faster with envelopes of one size, so the last tree does not just get the remainder.
        """
        native = engine.native()
        make: Callable[[list[bytes], bytes], SignedTree | Tree] = SignedTree if native is None else native.Tree
        total = len(claims)
        count = -(-total // self.batch)
        for number in range(count):
            part = claims[total * number // count : total * (number + 1) // count]
            yield make(part, by.direct if len(part) == 1 else by.batched)


def _end_of(key: SigningBackend) -> float:
    return key.not_after if isinstance(key, SigningKey) else inf


def _sign_by(key: SigningBackend, key_id: bytes, algorithm: Algorithm) -> _By:
    check_key_id(key_id)
    return _By(
        key,
        key_id,
        SCHEMES[algorithm],
        encode_protected(algorithm, key_id),
        encode_protected(algorithm, key_id, batched=True),
    )


def _check_bytes(*parts: object) -> None:
    """Raise TypeError unless all are bytes or None; claims are encoded later, and a mutable value could change."""
    for part in parts:
        if part is not None and not isinstance(part, bytes):
            raise TypeError


def _wrong_type(message: Any, recipient: object, in_reply_to: object) -> str | None:
    """Return what to pass instead of the first part of a wrong type; None if all types are right."""
    if not isinstance(message, Message):
        return f"a {type(message).__name__} cannot be signed: write a Message"
    parts: dict[str, tuple[object, type, str]] = {
        "channel": (message.channel, Channel, "a Channel"),
        "value": (message.value, bytes, "bytes, or None"),
        "key": (message.key, bytes, "bytes, or None"),
        "headers": (message.headers, tuple, 'pairs, as (("content-type", b"text/plain"),)'),
        "partition": (message.partition, int, "a number, or None"),
        "recipient": (recipient, str, "a principal, or None"),
        "in_reply_to": (in_reply_to, bytes, "the id of the request, or None"),
        "reply_to": (message.reply_to, str, "a subject, or None"),
    }
    for name, (value, wanted, give) in parts.items():
        if not isinstance(value, wanted) and (value is not None or name in {"channel", "headers"}):
            return f"{name} of type {type(value).__name__}: give {give}"
    if not all(_is_pair(header) for header in message.headers):
        return 'headers: give pairs of text and bytes (or None), as (("content-type", b"text/plain"),)'
    return None


def _is_pair(header: Any) -> bool:
    match header:
        case (str(), bytes() | None):
            return True
        case _:
            return False
