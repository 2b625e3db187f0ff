"""Header blocks: read strictly, whatever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from watchword_adapters.nats.headers import HeaderBlock, block_size, read_block

NAME = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=":"), min_size=1, max_size=20)
VALUE = st.binary(max_size=40).filter(lambda raw: b"\r" not in raw and b"\n" not in raw)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda raw: b"NATS/1.0" + raw + b"\r\n\r\n")))
def test_any_bytes_give_a_block_or_a_fault(raw: bytes) -> None:
    """No header block, however broken, raises anything; what is not exactly one has a fault and no status."""
    block = read_block(raw)
    assert isinstance(block, HeaderBlock)
    if block.fault is not None:
        assert block.status is None
        assert "Status" not in block
    else:
        assert raw.startswith(b"NATS/1.0")
        assert raw.endswith(b"\r\n")


@given(st.lists(st.tuples(NAME, VALUE), max_size=6))
def test_pairs_are_all_there_in_order(pairs: list[tuple[str, bytes]]) -> None:
    """Every header comes out in order, duplicates too, its value byte by byte without the blanks at its ends."""
    raw = b"NATS/1.0\r\n" + b"".join(name.encode() + b": " + value + b"\r\n" for name, value in pairs) + b"\r\n"
    block = read_block(raw)
    assert block.fault is None
    assert block.pairs == tuple((name, value.strip(b" \t")) for name, value in pairs)


@pytest.mark.parametrize("value", ["x", "", "a:  b", "~"])
async def test_size_is_what_the_client_writes(value: str) -> None:
    """The block is as long as nats-py will make it, to the byte."""
    client, sent = Client(), list[bytes]()

    async def keep(command: bytes) -> None:
        sent.append(command)

    client._send_command = keep  # type: ignore[method-assign, assignment]  # a wire of our own
    headers = {"one": value, "Two-2": value}
    await client._send_publish("s", "", b"payload", 7, headers)
    announced = int(sent[0].split(b"\r\n")[0].split()[2])
    assert block_size(headers) == announced


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [(b" 503", "503", None), (b" 404 No Messages", "404", "No Messages"), (b" 100 ", "100", None), (b"", None, None)],
)
def test_status_line(line: bytes, status: str | None, text: str | None) -> None:
    """The server's own lines are read as nats-py reads them."""
    block = read_block(b"NATS/1.0" + line + b"\r\nNats-Last-Stream: 7\r\n\r\n")
    assert block.fault is None
    assert (block.get("Status"), block.get("Description")) == (status, text)
    assert (block.status, block["Nats-Last-Stream"]) == (status, "7")


def test_a_block_is_read_when_somebody_asks() -> None:
    """What the client asks each message, whether it is a status line, costs no reading; the rest is read once."""
    raw = b"NATS/1.0\r\na: 1\r\na: 2\r\n\r\n"
    block = read_block(raw)
    assert block.raw == raw
    assert (block.get("Status"), block.get("Status", "none"), bool(block)) == (None, "none", True)
    assert not hasattr(block, "anything")
    assert "pairs" not in vars(block)
    assert (block["a"], block.get("a"), [*block], [*block.items()]) == ("2", "2", ["a"], [("a", "2")])
    assert (block.pairs, block.fault) == ((("a", b"1"), ("a", b"2")), None)
    assert read_block(b"NATS/1.0 503\r\n\r\n").raw is None
    refused = block.refused("subject is not UTF-8")
    assert (refused.raw, refused.fault, refused.pairs) == (None, "subject is not UTF-8", block.pairs)


def test_headers_named_like_a_status_are_none() -> None:
    """The dict that the base acts on has no status but the status line's; the pairs keep the header."""
    block = read_block(b"NATS/1.0\r\nStatus: 503\r\nDescription: x\r\n\r\n")
    assert {**block} == {}
    assert block.pairs == (("Status", b"503"), ("Description", b"x"))
