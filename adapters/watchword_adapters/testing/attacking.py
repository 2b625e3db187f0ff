"""An attacker with the rights of any agent: it reads and writes everywhere, and has only its own key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from watchword import SigningKey
from watchword.envelope import is_envelope_name
from watchword.spi import Channel, Signer
from watchword_adapters.testing.at_once import at_once
from watchword_adapters.testing.signing import signed

if TYPE_CHECKING:
    from watchword.message import Header
    from watchword.spi import Message
    from watchword_adapters.testing.bus import MemoryBus


class Attacker:
    """Captures messages on a ``MemoryBus``, and puts forged ones there.

    Each method but ``capture`` returns the message as stored on the bus.
    """

    def __init__(self, bus: MemoryBus) -> None:
        self.key: Final = SigningKey.generate()
        self._bus = bus

    def capture(self, name: str) -> list[Message]:
        """Return the messages on a topic or subject so far, in order."""
        return [message for message in self._bus.messages if message.channel.name == name]

    def replay(self, captured: Message) -> Message:
        """Send the same bytes again on their original channel."""
        return self._bus.put(captured)

    def misdirect(self, captured: Message, *, name: str | None = None, partition: int | None = None) -> Message:
        """Send the same bytes to another topic, subject or partition."""
        channel = captured.channel
        if name is not None:
            channel = Channel(channel.scheme, channel.realm, name)
        partition = captured.partition if partition is None else partition
        return self._bus.put(replace(captured, channel=channel, partition=partition))

    def alter(
        self, captured: Message, value: bytes | None, *, key: bytes | None = None, headers: tuple[Header, ...] = ()
    ) -> Message:
        """Send another value with the captured envelope; ``headers`` are added, ``key`` replaces the key."""
        key = captured.key if key is None else key
        return self._bus.put(replace(captured, value=value, key=key, headers=(*captured.headers, *headers)))

    def strip(self, captured: Message) -> Message:
        """Send the same message without its envelope."""
        headers = tuple(header for header in captured.headers if not is_envelope_name(header[0]))
        return self._bus.put(replace(captured, headers=headers))

    def forge(self, message: Message, *, principal: str) -> Message:
        """Sign a message in another agent's name, with the attacker's own key.

        ``MemoryBus.record`` and ``MemoryBus.msg`` create one; the envelope of a captured message is replaced.
        """
        headers = tuple(header for header in message.headers if not is_envelope_name(header[0]))
        signer = Signer(realm=self._bus.realm, principal=principal, key=self.key, clock=self._bus.clock)
        return self._bus.put(at_once(signed(signer, replace(message, headers=headers))))
