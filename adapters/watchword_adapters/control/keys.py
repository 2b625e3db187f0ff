"""Key source ``control``: the keys that operators have announced on the control log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchword.keys import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword import VerificationKey
    from watchword.control import Control
    from watchword.spi import KeySource


class ControlKeys:
    """Returns keys from the log, unless one of the ``others`` lists the same public key for another principal.

    The other source then wins: otherwise an operator could assign one agent the key of another.
    """

    def __init__(self, control: Control, others: Sequence[KeySource]) -> None:
        self._control = control
        self._others = others
        self._listed: list[tuple[VerificationKey, ...]] = []
        self._owners: dict[bytes, str] = {}

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys in force."""
        return self._control.keys

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        key = self._control.find(key_id)
        if key is None or key.principal != principal:
            return key
        return key if self._owner(key.public_bytes) in {None, principal} else None

    def _owner(self, public: bytes) -> str | None:
        found = [listed(source) for source in self._others]
        if any(one is not known for one, known in zip(found, self._listed, strict=False)) or not self._listed:
            self._listed = found
            self._owners = {key.public_bytes: key.principal for keys in found for key in keys}
        return self._owners.get(public)
