"""Pictures show what there is: bytes of a vector, figures of the page, reasons by their number."""

import base64
import json

from tests.support.pages import ROOT
from watchword import Reason
from website import draw


def test_pictures_of_data_are_those_that_would_be_drawn() -> None:
    """Promise: no picture shows another figure than the page, or other bytes than the vectors."""
    kept = {name: (draw.PICTURES / name).read_text("utf-8") for name in draw.drawn()}
    assert kept == draw.drawn(), "run: python -m website.draw"


def test_the_parts_of_an_envelope_are_all_of_it() -> None:
    """Promise: each byte stands in exactly one part, and each claim has a name."""
    vectors = json.loads((ROOT / "tests/vectors/v1/accepted.json").read_text())
    headers = dict(vectors[0]["messages"][0]["headers"])
    data = base64.urlsafe_b64decode(base64.b64decode(headers["watchword"]) + b"==")
    parts = draw.spans(data)
    assert [part.begin for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == len(data)
    assert [part.label.partition(":")[0] for part in parts[1:-3]] == ["iss", "iat", "cti", "c", "h", "m", "p", "v"]


def test_the_picture_of_the_way_counts_the_reasons() -> None:
    """Promise: the number in the picture is that of the reasons."""
    assert f"one of {len(Reason)} reasons" in (draw.PICTURES / "way.svg").read_text("utf-8")
