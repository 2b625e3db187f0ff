"""Who wrote what a handler is given: for its parameters, and for the broker, which hands over nothing else."""

from typing import Annotated, Any, TypeAlias

from aiokafka import ConsumerRecord
from faststream import BaseMiddleware, Context, Depends
from faststream.message import StreamMessage
from nats.aio.msg import Msg

from watchword import ConfigurationError, VerifiedMessage
from watchword_adapters.kafka import ObservedRecord, VerifiedRecord
from watchword_adapters.nats import DeliveredMsg

_JUDGED = (VerifiedRecord, ObservedRecord, DeliveredMsg)

_Handled: TypeAlias = Annotated[StreamMessage[Any], Context("message")]


class Judged(BaseMiddleware[Any, Any]):
    """The outermost middleware: stops whatever came to a broker of ours by another way than through a verifier."""

    async def on_receive(self) -> None:
        """Raise ConfigurationError for a message that nobody has judged."""
        for one in self.msg if isinstance(self.msg, list | tuple) else (self.msg,):
            if isinstance(one, ConsumerRecord | Msg) and not isinstance(one, _JUDGED):
                raise ConfigurationError(
                    "a message that nobody has verified was about to reach a handler; in tests, write TestKafkaBroker"
                    " and TestNatsBroker of watchword.faststream in place of FastStream's"
                )


def verified_of(message: _Handled) -> VerifiedMessage | None:
    """Return what was verified of a message; None only while observing, for one that enforcing would have dropped."""
    raw = message.raw_message
    if not isinstance(raw, _JUDGED):
        raise ConfigurationError(
            "each message of a batch has a sender of its own: write Principals or VerifiedBatch in a batch's handler"
        )
    return raw.verified


def verified_batch_of(message: _Handled) -> list[VerifiedMessage | None]:
    """Return what was verified of each message of a batch, in its order; see ``verified_of``."""
    if not isinstance(message.raw_message, list | tuple):
        raise ConfigurationError("a single message has one sender: write Principal or Verified in its handler")
    return [one.verified for one in message.raw_message]


def _principal_of(message: _Handled) -> str | None:
    verified = verified_of(message)
    return None if verified is None else verified.principal


def _principals_of(message: _Handled) -> list[str | None]:
    return [None if one is None else one.principal for one in verified_batch_of(message)]


Verified: TypeAlias = Annotated[VerifiedMessage | None, Depends(verified_of, cast=False)]
"""A handler's parameter: what was verified of the message. While observing it may be None, else never."""

Principal: TypeAlias = Annotated[str | None, Depends(_principal_of, cast=False)]
"""A handler's parameter: the agent that wrote the message. While observing it may be None, else never."""

VerifiedBatch: TypeAlias = Annotated[list[VerifiedMessage | None], Depends(verified_batch_of, cast=False)]
"""As ``Verified``, for each message of a batch."""

Principals: TypeAlias = Annotated[list[str | None], Depends(_principals_of, cast=False)]
"""As ``Principal``, for each message of a batch."""
