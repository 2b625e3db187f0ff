"""The contract of a signing back-end: subclass ``SigningBackendContract``, create one, and run it under pytest.

``HeldElsewhereContract`` is for those whose key is on another machine or device, which can be down, slow or wrong.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import pytest

from watchword import Algorithm, ConfigurationError, MemoryKeys, Policy, SigningKey, Unavailable, VerificationKey
from watchword.algorithms import SCHEMES
from watchword.keys import public_half
from watchword.spi import Channel, MemoryReplayStore, Message, ShownBackend, Signer, Verifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from watchword.algorithms import PublicKey

ALICE: Final = "agent://contract/alice"
TASKS: Final = Channel("nats", "contract", "tasks")
LARGEST: Final = 4096
"""Most bytes that are signed: fewer than an envelope has."""

HALF_OF_P256: Final = 0x7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8


class Trouble(Enum):
    """Faults of the holder of a key."""

    DOWN = auto()
    SILENT = auto()
    """It accepts calls, but never responds."""

    GARBAGE = auto()
    """Its responses are not signatures."""

    OTHER_KEY = auto()
    """It signs with another key than before."""

    HIGH_S = auto()
    """Of an ESP256 signature's two forms it returns the one that is rejected; no effect with Ed25519."""


def known(backend: ShownBackend) -> VerificationKey:
    """Return the public half of a back-end's key, as Alice's."""
    return public_half(backend, ALICE)


def signer_of(backend: ShownBackend, batch: int = 64) -> Signer:
    """Return a signer for Alice with a back-end."""
    return Signer(
        realm="contract", principal=ALICE, key=backend, clock=time.time, key_id=backend.key_id,
        algorithm=backend.algorithm, batch=batch,
    )  # fmt: skip


async def deliver(backend: ShownBackend, count: int) -> None:
    """Sign this many messages, and check that a reader with the public half accepts each."""
    policy = Policy()
    verifier = Verifier(
        realm="contract",
        principal=None,
        keys=MemoryKeys([known(backend)]),
        replay=MemoryReplayStore(horizon=policy.horizon),
        policy=policy,
        clock=time.time,
    )
    messages = [Message(channel=TASKS, value=b"%d" % number, reader="contract") for number in range(count)]
    for message, signed in zip(messages, await signer_of(backend).sign_many(messages), strict=True):
        with_header = Message(channel=TASKS, value=message.value, headers=(signed.header,), reader="contract")
        verified = await verifier.verify(with_header)
        assert (verified.principal, verified.value, verified.id) == (ALICE, message.value, signed.id.hex())


class SigningBackendContract(ABC):
    """What every ``ShownBackend`` must do; the tests are coroutines for pytest-asyncio."""

    algorithms: Sequence[Algorithm] = (Algorithm.ED25519, Algorithm.ESP256)
    """Those that the back-end has."""

    secrets: Sequence[str] = ()
    """Secrets that must never be shown: PINs, tokens, passphrases."""

    @abstractmethod
    async def make_backend(self, algorithm: Algorithm) -> ShownBackend:
        """Return a back-end with a key of this algorithm; two calls may return the same key or different ones."""

    async def test_it_signs_any_message(self) -> None:
        """For any data, the public half verifies the signature, and for that data only."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            assert backend.algorithm is algorithm
            for data in (b"\0", b"text", bytes(32), os.urandom(64), os.urandom(1000), os.urandom(LARGEST)):
                signature = await backend.sign(data)
                assert type(signature) is bytes
                assert len(signature) == SCHEMES[algorithm].signature_bytes
                assert known(backend).verifies(signature, data)
                assert not known(backend).verifies(signature, data + b"\0")

    async def test_readers_accept_what_it_signs(self) -> None:
        """A single message, a full batch and several batches verify as with a key in memory."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            for count in (1, 64, 100):
                await deliver(backend, count)

    async def test_s_is_low(self) -> None:
        """Of an ESP256 signature's two forms it returns the one that verifies, whichever the signer produced."""
        if Algorithm.ESP256 in self.algorithms:
            backend = await self.make_backend(Algorithm.ESP256)
            for number in range(24):
                assert int.from_bytes((await backend.sign(b"%d" % number))[32:]) <= HALF_OF_P256

    async def test_calls_at_once_do_not_mix(self) -> None:
        """Concurrent calls each return the signature of their own data."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            data = [os.urandom(50) for _ in range(32)]
            signatures = await asyncio.gather(*map(backend.sign, data))
            assert all(map(known(backend).verifies, signatures, data))

    async def test_a_call_that_is_cancelled_harms_no_other(self) -> None:
        """A cancelled call affects neither earlier nor later calls, nor the back-end."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            data = [os.urandom(50) for _ in range(9)]
            calls = [asyncio.create_task(backend.sign(one)) for one in data]
            await asyncio.sleep(0)
            for call in calls[1::3]:
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for one, answer in zip(data, answers, strict=True):
                assert isinstance(answer, asyncio.CancelledError) or known(backend).verifies(answer, one)  # type: ignore[arg-type]  # no other error
            assert known(backend).verifies(await backend.sign(b"later"), b"later")

    async def test_any_event_loop_may_ask(self) -> None:
        """A process may have several event loops, in threads or one after the other; calls succeed in each."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            found: list[bytes] = []
            other = threading.Thread(target=lambda: found.append(asyncio.run(_signed(backend))), daemon=True)  # noqa: B023 - it ends in here
            other.start()
            here = await _signed(backend)
            await asyncio.to_thread(other.join)
            assert all(known(backend).verifies(one, b"loop") for one in (here, *found))
            assert len(found) == 1

    async def test_it_shows_no_secret(self) -> None:
        """Its repr, its errors and its pickled form contain no secret."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            assert not any(secret in f"{backend!r} {backend}" for secret in self.secrets)
            with pytest.raises(TypeError):
                pickle.dumps(backend)


class HeldElsewhereContract(SigningBackendContract):
    """What a ``ShownBackend`` must do in addition when its key is held elsewhere."""

    @abstractmethod
    def trouble(self, backend: ShownBackend, trouble: Trouble) -> AbstractAsyncContextManager[None]:
        """Return a context during which the holder of the key has this fault."""

    @abstractmethod
    async def made_again(self, backend: ShownBackend, public: PublicKey) -> ShownBackend:
        """Return another back-end for the same key, configured with ``public`` as the public half."""

    @pytest.mark.parametrize("trouble", [Trouble.DOWN, Trouble.SILENT, Trouble.GARBAGE, Trouble.OTHER_KEY])
    async def test_what_is_no_signature_is_an_outage(self, trouble: Trouble) -> None:
        """Down, silent or wrong: it is Unavailable in time, without showing a secret; afterwards it signs again."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            signer, message = signer_of(backend), Message(channel=TASKS, value=b"x")
            async with self.trouble(backend, trouble), asyncio.timeout(30):
                with pytest.raises(Unavailable) as caught:
                    await signer.sign(message)
            assert caught.value.what == "signing"
            assert caught.value.detail
            self._shows_nothing(caught.value)
            await deliver(backend, 1)

    async def test_high_s_is_mended(self) -> None:
        """A back-end that ignores the low-s rule still produces messages that verify."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            async with self.trouble(backend, Trouble.HIGH_S):
                await deliver(backend, 3)

    async def test_the_event_loop_goes_on_meanwhile(self) -> None:
        """While a call waits, everything else in the process continues; and it can be cancelled at once."""
        backend = await self.make_backend(self.algorithms[0])
        async with self.trouble(backend, Trouble.SILENT):
            call = asyncio.create_task(backend.sign(b"x"))
            for _ in range(20):  # each a turn of the loop, and time for the call to reach the silent holder
                await asyncio.sleep(0.001)
            assert not call.done()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await deliver(backend, 1)

    async def test_a_key_that_is_another_one_is_refused_at_the_start(self) -> None:
        """A holder that signs with another key than the published one is refused at the start."""
        for algorithm in self.algorithms:
            backend, other = await self.make_backend(algorithm), SigningKey.generate(algorithm).public
            with pytest.raises(ConfigurationError, match="does not sign with") as caught:
                await self.made_again(backend, other)
            self._shows_nothing(caught.value)

    async def test_the_published_key_is_enough(self) -> None:
        """If the public half is configured, it is not requested from the holder."""
        for algorithm in self.algorithms:
            backend = await self.make_backend(algorithm)
            assert (await self.made_again(backend, backend.public)).public == backend.public

    def _shows_nothing(self, error: BaseException | None) -> None:
        """Check that neither an error nor its cause shows a secret."""
        while error is not None:
            assert not any(secret in f"{error!r} {vars(error)}" for secret in self.secrets)
            error = error.__cause__ or error.__context__


async def _signed(backend: ShownBackend) -> bytes:
    return await backend.sign(b"loop")
