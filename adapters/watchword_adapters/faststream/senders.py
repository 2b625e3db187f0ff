"""Handler parameters for the verified author of a message, and the middleware that refuses unverified messages."""

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
    """The outermost middleware: refuses a message that reached our broker without passing a verifier."""

    async def on_receive(self) -> None:
        """Raise ConfigurationError if a message was not judged."""
        for one in self.msg if isinstance(self.msg, list | tuple) else (self.msg,):
            if isinstance(one, ConsumerRecord | Msg) and not isinstance(one, _JUDGED):
                raise ConfigurationError(
                    "an unverified message was about to reach a handler; in tests, use TestKafkaBroker"
                    " and TestNatsBroker of watchword.faststream instead of FastStream's"
                )


def verified_of(message: _Handled) -> VerifiedMessage | None:
    """Return the verified message; None only in observe mode, for one that enforce mode would have dropped."""
    raw = message.raw_message
    if not isinstance(raw, _JUDGED):
        raise ConfigurationError(
            "each message of a batch has its own sender: use Principals or VerifiedBatch in a batch's handler"
        )
    return raw.verified


def verified_batch_of(message: _Handled) -> list[VerifiedMessage | None]:
    """Return ``verified_of`` each message of a batch, in order."""
    if not isinstance(message.raw_message, list | tuple):
        raise ConfigurationError("a single message has one sender: use Principal or Verified in its handler")
    return [one.verified for one in message.raw_message]


def _principal_of(message: _Handled) -> str | None:
    verified = verified_of(message)
    return None if verified is None else verified.principal


def _principals_of(message: _Handled) -> list[str | None]:
    return [None if one is None else one.principal for one in verified_batch_of(message)]


Verified: TypeAlias = Annotated[VerifiedMessage | None, Depends(verified_of, cast=False)]
"""A handler's parameter: the verified message. It may be None in observe mode only."""

Principal: TypeAlias = Annotated[str | None, Depends(_principal_of, cast=False)]
"""A handler's parameter: the agent that wrote the message. It may be None in observe mode only."""

VerifiedBatch: TypeAlias = Annotated[list[VerifiedMessage | None], Depends(verified_batch_of, cast=False)]
"""As ``Verified``, for each message of a batch."""

Principals: TypeAlias = Annotated[list[str | None], Depends(_principals_of, cast=False)]
"""As ``Principal``, for each message of a batch."""
