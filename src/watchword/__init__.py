"""Watchword: authentication of every message between agents on Kafka and NATS.

``load`` reads ``watchword.toml`` and returns a ``Watchword``, which is given to a client of ``watchword.kafka`` or
``watchword.nats``. A message that is delivered carries a ``VerifiedMessage`` as ``.verified``. Any other ends as
``Rejected``, which is final and has one ``Reason``, or as ``Unavailable``: then it is judged again later.
``watchword.spi`` has the interfaces for plug-ins and adapters.
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
else:  # with this, a type checker would accept any attribute of the package

    def __getattr__(name: str) -> object:
        """Import ``load``, which reads files, and ``__version__`` on first use: the core needs neither."""
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
