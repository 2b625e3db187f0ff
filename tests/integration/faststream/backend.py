"""A key held elsewhere, which is away for a while."""

from watchword import SigningKey, Watchword
from watchword.spi import Signer


class Backend:
    """Fails as often as ``failures`` says, then signs."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.failures = 0

    async def sign(self, data: bytes) -> bytes:
        """See ``SigningBackend.sign``."""
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        return await self._key.sign(data)


def signing_elsewhere(agent: Watchword, key: SigningKey) -> tuple[Backend, Watchword]:
    """Return the agent with a signer that asks the backend for each signature."""
    backend, verifier = Backend(key), agent.verifier
    assert verifier.principal is not None
    signer = Signer(
        realm=agent.realm,
        principal=verifier.principal,
        key=backend,
        key_id=key.key_id,
        algorithm=key.algorithm,
        clock=agent.clock,
    )
    return backend, Watchword.of(verifier, signer)
