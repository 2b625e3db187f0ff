"""The trusted authorities of each trust domain, from files or the Workload API; the last good set stays in use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from watchword import ConfigurationError
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.regular_file import open_regular, without_mark
from watchword_adapters.spiffe.certificates import (
    MAX_BUNDLE_BYTES,
    check_authorities,
    check_trust_domain,
    read_authorities,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cryptography.x509 import Certificate

    from watchword.spi import Warn
    from watchword_adapters.spiffe.workload import Workload

STALENESS_CEILING: Final = 7 * 86400.0
STALENESS_FLOOR: Final = 5.0


class Bundles(Protocol):
    """A source of bundles."""

    @property
    def by_domain(self) -> Mapping[str, Sequence[Certificate]]:
        """The trusted authorities by trust domain; a new object after each change."""
        ...

    def look(self) -> None:
        """Check for changes; may block on a disk."""
        ...

    def listen(self, call: Callable[[], None]) -> None:
        """Register ``call``, to be called from any thread when there may be changes."""
        ...

    @property
    def is_stale(self) -> bool:
        """True if the bundles are too old to be trusted."""
        ...

    def close(self) -> None:
        """Stop checking."""
        ...


def check_staleness(seconds: float) -> float:
    """Return a valid ``max_staleness``; ConfigurationError if it is out of range."""
    if not (math.isfinite(seconds) and STALENESS_FLOOR <= seconds <= STALENESS_CEILING):
        raise ConfigurationError(
            f"max_staleness of {seconds:g} s: write {STALENESS_FLOOR:g} s to {STALENESS_CEILING:g} s"
        )
    return seconds


class FileBundles:
    """Bundles in PEM files, one per trust domain; a fault in one leaves all unchanged, and is logged."""

    def __init__(
        self,
        paths: Mapping[str, Path],
        *,
        max_staleness: float,
        warn: Warn,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._paths = {check_trust_domain(domain): path for domain, path in paths.items()}
        self._max_staleness = check_staleness(max_staleness)
        self._warn = warn
        self._clock = clock
        self._told: str | None = None
        self._current = clock()
        self._read = self._read_all()
        self.by_domain: Mapping[str, Sequence[Certificate]] = self._parsed(self._read)

    def look(self) -> None:
        """See ``Bundles``."""
        begun = self._clock()
        try:
            read = self._read_all()
            if read != self._read:
                self.by_domain = self._parsed(read)
                self._read = read
        except ConfigurationError as error:
            if str(error) != self._told:
                self._told = str(error)
                self._warn("keys.bundles_not_read", failure=str(error), remedy="the last good ones stay in use")
            return
        self._told, self._current = None, begun

    def listen(self, call: Callable[[], None]) -> None:
        """See ``Bundles``: files send no notifications."""

    @property
    def is_stale(self) -> bool:
        """See ``Bundles``."""
        return self._clock() - self._current > self._max_staleness

    def close(self) -> None:
        """See ``Bundles``: nothing is open."""

    def _read_all(self) -> dict[str, bytes]:
        return {domain: _text_of(path) for domain, path in self._paths.items()}

    def _parsed(self, read: Mapping[str, bytes]) -> dict[str, Sequence[Certificate]]:
        found: dict[str, Sequence[Certificate]] = {}
        for domain, text in read.items():
            try:
                found[domain] = read_authorities(text, domain)
            except ConfigurationError as error:
                raise ConfigurationError(f"bundle {self._paths[domain]}: {error}") from None
        return found


class WorkloadBundles:
    """Bundles of some trust domains from the Workload API; while it is out of reach, the last ones."""

    def __init__(self, workload: Workload, domains: Sequence[str], *, max_staleness: float, warn: Warn) -> None:
        self._workload = workload
        self._domains = [check_trust_domain(domain) for domain in domains]
        self._max_staleness = check_staleness(max_staleness)
        self._warn = warn
        self._told: str | None = None
        self.by_domain: Mapping[str, Sequence[Certificate]] = {}
        workload.wait()
        self.look()

    def look(self) -> None:
        """See ``Bundles``."""
        given = self._workload.given.bundles
        found: dict[str, Sequence[Certificate]] = {}
        wrong: list[str] = []
        for domain in self._domains:  # what is wrong with one says nothing of the others
            try:
                found[domain] = check_authorities(given.get(domain, ()), domain)
            except ConfigurationError as error:
                wrong.append(f"bundle of {domain!r}: {error}")
                found[domain] = self.by_domain.get(domain, ())
        missing = [domain for domain in self._domains if domain not in given]
        if missing:
            wrong.append(
                f"the Workload API gives no bundle of {', '.join(missing)}, only of {', '.join(sorted(given))}"
            )
        told = "; ".join(wrong) or None
        if told is not None and told != self._told:
            remedy = "the last good ones stay in use; of a trust domain without a bundle no workload is known"
            self._warn("keys.bundles_not_read", failure=told, remedy=remedy)
        self._told = told
        if {name: set(some) for name, some in found.items()} != {
            name: set(some) for name, some in self.by_domain.items()
        }:
            self.by_domain = found

    def listen(self, call: Callable[[], None]) -> None:
        """See ``Bundles``."""
        self._workload.listen(call)

    @property
    def is_stale(self) -> bool:
        """See ``Bundles``."""
        return self._workload.broken_for > self._max_staleness

    def close(self) -> None:
        """See ``Bundles``."""
        self._workload.close()


def _text_of(path: Path) -> bytes:
    try:
        with open_regular(path) as (file, _):
            return without_mark(file.read(MAX_BUNDLE_BYTES + 1))
    except OSError as error:
        raise ConfigurationError(
            f"bundle {path}: {error.strerror}; write the output of 'spire-server bundle show'"
        ) from None
