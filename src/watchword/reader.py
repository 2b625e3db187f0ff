"""Reads the envelopes that one verifier is offered: strictly, and what is like something verified quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.envelope import Envelope, read_into, unarmored
from watchword.template import Template

if TYPE_CHECKING:
    from watchword.message import Message
    from watchword.verification import Verification

MAX_TEMPLATES: Final = 4096
"""Kept at once, of two or three kilobytes each; then all are forgotten, which costs nothing but time."""

_Shape: TypeAlias = tuple[str, int | None, int]


class LearningReader:
    """A strict reader that learns from what verified, so that no stranger can teach it anything."""

    def __init__(self) -> None:
        self._templates: dict[_Shape, tuple[int, dict[bytes, Template]]] = {}
        self._count = 0

    def open(self, case: Verification, header: bytes) -> None:
        """Read a header's value into ``case``, as ``parse`` does."""
        raw = unarmored(header)
        if not self._familiar(case.message, raw, case):
            read_into(case, raw)
            case.lesson = raw

    def learn(self, case: Verification, raw: bytes) -> None:
        """Learn from a message that was found to be authentic, and was like nothing learned so far."""
        message = case.message
        if self._familiar(message, raw, Envelope()):  # since then
            return
        template = Template.of(case)
        if template is None:
            return
        if self._count >= MAX_TEMPLATES:
            self._templates.clear()
            self._count = 0
        shape = (message.channel.uri, message.partition, len(raw))
        end, by_issuer = self._templates.setdefault(shape, (len(template.begin), {}))
        if end == len(template.begin):
            self._count += template.begin not in by_issuer
            by_issuer[template.begin] = template

    def _familiar(self, message: Message, raw: bytes, envelope: Envelope) -> bool:
        known = self._templates.get((message.channel.uri, message.partition, len(raw)))
        if known is None:
            return False
        template = known[1].get(raw[: known[0]])
        return template is not None and template.read(raw, envelope)
