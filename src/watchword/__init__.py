"""Watchword: authentication of every message between agents on Kafka and NATS.

``load`` makes of ``watchword.toml`` the ``Watchword`` that plugs into a client, which has a door of its own:
``watchword.kafka`` and ``watchword.nats``. What is delivered carries a ``VerifiedMessage`` as ``.verified``. The rest
ends as ``Rejected``, for good and for one ``Reason``, or as ``Unavailable``, which means that it comes again. What
plug-ins and adapters need is in ``watchword.spi``.
"""

from typing import TYPE_CHECKING

from watchword.agent import Watchword
from watchword.algorithms import Algorithm
from watchword.errors import ConfigurationError, Reason, Rejected, SigningError, Unavailable, WatchwordError
from watchword.keys import MemoryKeys, SigningKey, VerificationKey
from watchword.message import VerifiedMessage
from watchword.policy import Alias, Allow, Mode, Policy, Rate

if TYPE_CHECKING:
    from watchword_adapters.config import load

    __version__: str
else:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """Give ``load``, which reads files, and ``__version__`` where somebody asks: the core needs neither."""
        if name == "load":
            from watchword_adapters.config import load  # noqa: PLC0415 - see above

            return load
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - see above

            return version("watchword")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Algorithm",
    "Alias",
    "Allow",
    "ConfigurationError",
    "MemoryKeys",
    "Mode",
    "Policy",
    "Rate",
    "Reason",
    "Rejected",
    "SigningError",
    "SigningKey",
    "Unavailable",
    "VerificationKey",
    "VerifiedMessage",
    "Watchword",
    "WatchwordError",
    "__version__",
    "load",
]
