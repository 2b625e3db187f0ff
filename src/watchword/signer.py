"""The signer: a message in, the one header to add out; many messages share one signature."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watchword.claims import make_claims
from watchword.encoding import (
    characters,
    encode_batched,
    encode_claims,
    encode_direct,
    encode_pair,
    encode_protected,
    metadata_digest,
    sig_structure,
    value_digest,
)
from watchword.envelope import (
    ID_BYTES,
    MAX_ENVELOPE_BYTES,
    MAX_ENVELOPE_CHARACTERS,
    MAX_TREE_SIZE,
    is_envelope_name,
)
from watchword.errors import ConfigurationError, SigningError, Unavailable
from watchword.keys import SIGNATURE_BYTES, Algorithm, SigningBackend, SigningKey, check_key_id, with_low_s
from watchword.merkle import paths_of
from watchword.message import (
    ENVELOPE_HEADER,
    MAX_HEADER_BYTES,
    TRACE_HEADERS,
    Header,
    check_realm,
    is_principal,
    is_subject,
    maker_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from watchword.message import Message

BATCH: Final = 64
"""Messages under one signature: twice as many cost 46 characters more in each, and save half a microsecond."""

_NATS_NAME: Final = re.compile(r"[!-9;-~]+")  # printable ASCII without blank and colon
_NATS_VALUE: Final = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")  # printable ASCII, no blank at its ends
_ROOM: Final = MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS


@dataclass(frozen=True, slots=True)
class Signed:
    """What signing gave: the header to add, the message's id (16 bytes) and its time of issue (seconds)."""

    header: Header
    id: bytes
    issued_at: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A message's claims, complete and checked, that wait for a signature.

    ``largest`` is the most characters that the envelope will have, alone or in a batch.
    """

    claims: bytes
    id: bytes
    issued_at: int
    largest: int


_make_signed, _make_draft = maker_of(Signed), maker_of(Draft)


class Signer:
    """Signs messages of one principal in one realm.

    ``key`` is a SigningKey; or any SigningBackend with the ``key_id`` and ``algorithm`` of its public half. ``clock``
    returns seconds since the epoch. ``batch`` is how many messages may share a signature, 1 to 4096.
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
        batch: int = BATCH,
    ) -> None:
        if not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        if isinstance(key, SigningKey):
            key_id, algorithm = key_id or key.key_id, key.algorithm
        if key_id is None or algorithm is None:
            raise ConfigurationError("a signing back-end needs the key_id and algorithm of its public key")
        check_key_id(key_id)
        if not 1 <= batch <= MAX_TREE_SIZE:
            raise ConfigurationError(f"batch of {batch} messages: choose 1 to {MAX_TREE_SIZE}")
        self.realm: Final = check_realm(realm)
        self.principal: Final = principal
        self.batch: Final = batch
        self._backend = key
        self._algorithm = algorithm
        self._direct = encode_protected(algorithm, key_id)
        self._batched = encode_protected(algorithm, key_id, batched=True)
        self._longest_path = (batch - 1).bit_length()
        self._clock = clock
        self._uncovered = frozenset(uncovered)

    async def sign(
        self,
        message: Message,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
    ) -> Signed:
        """Return the header that makes ``message`` verifiable on its channel, and nowhere else.

        Options as for ``draft``. Unavailable where the signing back-end failed.
        """
        draft = self.draft(message, recipient=recipient, expires_at=expires_at, in_reply_to=in_reply_to)
        (signed,) = await self.sign_drafts([draft])
        return signed

    async def sign_many(
        self, messages: Iterable[Message], *, recipient: str | None = None, expires_at: int | None = None
    ) -> list[Signed]:
        """Sign messages, ``batch`` of them with one signature; each can be verified without the others.

        Options and errors as for ``sign``; where one message cannot be signed none is.
        """
        return await self.sign_drafts(
            [self.draft(message, recipient=recipient, expires_at=expires_at) for message in messages]
        )

    def draft(
        self,
        message: Message,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
    ) -> Draft:
        """Return what is to be signed of ``message``: its claims, as of now.

        ``recipient`` is the principal it is meant for; ``expires_at`` is in seconds since the epoch; ``in_reply_to`` is
        the id of the request that it answers. SigningError where the bus would change the message or a limit is passed.
        """
        self._check(message, recipient, expires_at)
        if in_reply_to is not None and len(in_reply_to) != ID_BYTES:
            raise SigningError(f"in_reply_to of {len(in_reply_to)} bytes: give the request's id, {ID_BYTES} bytes")
        covered = {name for name, _ in message.headers if name not in self._uncovered}
        message_id = os.urandom(ID_BYTES)  # from the kernel each time: a forked or cloned process draws its own (A37)
        issued_at = int(self._clock())
        claims = encode_claims(
            make_claims(
                self.principal,
                message_id,
                issued_at,
                message.channel.uri,
                recipient,
                expires_at,
                tuple(sorted(covered, key=str.encode)),
                self._metadata(message, covered),
                message.partition,
                in_reply_to,
                message.reply_to,
                value_digest(message.value),
            )
        )
        largest = characters(len(claims), len(self._batched), self._longest_path)
        if largest > MAX_ENVELOPE_CHARACTERS:
            raise SigningError(
                f"envelope over {MAX_ENVELOPE_BYTES} bytes: use fewer or shorter header and channel names"
            )
        return _make_draft(claims, message_id, issued_at, largest)

    @staticmethod
    def _metadata(message: Message, covered: set[str]) -> bytes | None:
        if message.key is None and not covered:
            return None
        pairs = [encode_pair(name, value) for name, value in message.headers if name in covered]
        return metadata_digest(message.key, pairs)

    async def sign_drafts(self, drafts: Sequence[Draft]) -> list[Signed]:
        """Sign drafts of this signer's, ``batch`` with one signature; Unavailable where the signing back-end failed."""
        signed: list[Signed] = []
        for tree in self._trees(drafts):
            try:
                signature: object = await self._backend.sign(tree.data)
            except Exception as error:
                raise Unavailable("signing", type(error).__name__) from error
            if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
                raise Unavailable("signing", f"the back-end did not return {SIGNATURE_BYTES} bytes")
            low = with_low_s(signature) if self._algorithm is Algorithm.ESP256 else signature  # few KMS care
            signed += tree.signed(low)
        return signed

    def sign_now(self, drafts: Sequence[Draft]) -> list[Signed]:
        """Sign as ``sign_drafts`` does, but without ever waiting; ConfigurationError unless ``in_memory``."""
        if not isinstance(self._backend, SigningKey):
            raise ConfigurationError("only a SigningKey signs at once: await sign_drafts() instead")
        return [signed for tree in self._trees(drafts) for signed in tree.signed(self._backend.sign_now(tree.data))]

    @property
    def in_memory(self) -> bool:
        """Whether the private key is held by this process, so that signing takes microseconds."""
        return isinstance(self._backend, SigningKey)

    def _trees(self, drafts: Sequence[Draft]) -> Iterator[_Tree]:
        for start in range(0, len(drafts), self.batch):
            yield _Tree(drafts[start : start + self.batch], self._direct, self._batched)

    def _check(self, message: Message, recipient: str | None, expires_at: int | None) -> None:
        if message.channel.realm != self.realm:
            raise SigningError(f"channel {message.channel}: this signer signs for realm {self.realm!r}")
        message.channel.check_signable()
        if recipient is not None and not is_principal(recipient):
            raise SigningError(f"recipient {recipient[:128]!r} is not a principal")
        if expires_at is not None and not _is_whole(expires_at, 1 << 33):
            raise SigningError(f"expires_at {expires_at}: whole seconds since the epoch")
        if message.partition is not None and not _is_whole(message.partition, 1 << 31):
            raise SigningError(f"partition {message.partition} is none")
        if message.reply_to is not None and not is_subject(message.reply_to):
            raise SigningError(f"reply subject {message.reply_to!r}: write a subject without wildcards")
        _check_headers(message)


class _Tree:
    """Drafts under one signature; a single one is signed directly. ``data`` is what is to be signed."""

    def __init__(self, drafts: Sequence[Draft], direct: bytes, batched: bytes) -> None:
        self._drafts = drafts
        self._protected = direct if len(drafts) == 1 else batched
        if len(drafts) == 1:
            self.data = sig_structure(direct, 0, drafts[0].claims)
        else:
            root, self._paths = paths_of([draft.claims for draft in drafts])
            self.data = sig_structure(batched, len(drafts), root)

    def signed(self, signature: bytes) -> list[Signed]:
        """Return each draft with its envelope."""
        if len(self._drafts) == 1:
            values = [encode_direct(self._drafts[0].claims, self._protected, signature)]
        else:
            values = [
                encode_batched(
                    draft.claims,
                    self._protected,
                    signature,
                    size=len(self._drafts),
                    index=index,
                    path=self._paths[index],
                )
                for index, draft in enumerate(self._drafts)
            ]
        return [
            _make_signed((ENVELOPE_HEADER, value), draft.id, draft.issued_at)
            for draft, value in zip(self._drafts, values, strict=True)
        ]


def _is_whole(value: object, limit: int) -> bool:
    """Tell whether this is an int: a float, as of time.time() + 60, or a bool would be malformed to every reader."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _check_headers(message: Message) -> None:
    """Refuse headers that the bus or a client would change on the way; they could not verify at the other end."""
    size = 0
    for name, value in message.headers:
        if is_envelope_name(name):
            raise SigningError(
                "the message bears an envelope already: sign it once, and forward only what you received"
            )
        try:
            size += len(name.encode()) + len(value or b"")
        except UnicodeEncodeError:
            raise SigningError("header name that is not Unicode text") from None
    if size > MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS:
        raise SigningError(f"headers of {size} bytes: at most {MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS}")
    if message.channel.scheme == "nats":
        _check_nats_headers(message.headers)


def _check_nats_headers(headers: tuple[Header, ...]) -> None:
    names = [name for name, _ in headers]
    if len(set(names)) != len(names):
        raise SigningError("a header twice: NATS clients keep only the last, so join the values")
    for name, value in headers:
        if not _NATS_NAME.fullmatch(name):
            raise SigningError(f"header name {name[:64]!r}: NATS carries printable ASCII without blanks and ':'")
        if value is None or not _NATS_VALUE.fullmatch(value):
            raise SigningError(f"value of header {name!r}: NATS carries printable ASCII without blanks at its ends")
