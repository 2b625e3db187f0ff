"""A29: no verifier takes a quarantined copy for a message, on whatever channel and bus it comes."""

from dataclasses import replace

import pytest

from tests.unit.core.world import NOW, REALM, kafka, nats, rejected, signed
from watchword import Reason, Rejected, Unavailable
from watchword.quarantine_copy import make_copy
from watchword.spi import Channel, HeaderStyle, Message


@pytest.mark.parametrize("style", list(HeaderStyle))
@pytest.mark.parametrize("name", ["watchword", "Watchword", "WATCHWORD"])
@pytest.mark.parametrize("verdict", [Rejected(Reason.STALE), Unavailable("keys")], ids=["rejected", "undetermined"])
@pytest.mark.parametrize("bare", [kafka(), nats()], ids=["kafka", "nats"])
def test_a29_a_copy_is_unsigned_wherever_it_comes(
    bare: Message, verdict: Rejected | Unavailable, name: str, style: HeaderStyle
) -> None:
    """On its own channel or in the quarantine: whole, as a pointer, or as NATS carries it, a copy is unsigned."""
    message = signed(bare)
    message = replace(message, headers=(*message.headers[:-1], (name, message.headers[-1][1])))
    copy = make_copy(message, verdict, now=NOW, style=style)
    carried = tuple((key, value.encode()) for key, value in copy.nats_headers().items())
    quarantine = Channel(bare.channel.scheme, REALM, "quarantine")
    for headers in (copy.headers, copy.pointer().headers, carried):
        for channel in (bare.channel, quarantine):
            again = replace(message, headers=headers, channel=channel)
            assert rejected(again).reason is Reason.UNSIGNED


@pytest.mark.parametrize("bare", [kafka(), nats()], ids=["kafka", "nats"])
def test_a29_a_copy_made_whole_again_belongs_where_it_came_from(bare: Message) -> None:
    """With its envelope put back a copy is the original, which is good on no other channel than its own."""
    message = signed(bare)
    copy = make_copy(message, Unavailable("keys"), now=NOW, style=HeaderStyle.WATCHWORD)
    headers = tuple((name.removeprefix("watchword-original-"), value) for name, value in copy.headers)
    there = replace(message, headers=headers, channel=Channel(bare.channel.scheme, REALM, "quarantine"))
    assert rejected(there).reason is Reason.WRONG_CHANNEL
