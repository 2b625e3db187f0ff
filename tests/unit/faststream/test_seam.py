"""The seam to FastStream: what we use of its insides is listed once, and checked when a broker is made."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from faststream.kafka.configs import KafkaBrokerConfig

from tests.unit.faststream.agents import agent
from watchword import ConfigurationError
from watchword.faststream import KafkaBroker, NatsBroker
from watchword_adapters.faststream import _seam as seam
from watchword_adapters.faststream._seam import Name

LISTED = [(KafkaBroker, one) for one in seam.KAFKA] + [(NatsBroker, one) for one in seam.NATS]
each = pytest.mark.parametrize(("kind", "one"), LISTED, ids=[f"{one.owner.__name__}.{one.name}" for _, one in LISTED])


def refusal(one: Name) -> Any:
    """Expect an error with FastStream's version and the name in it, and what to do."""
    told = rf"faststream {version('faststream')}: {one.owner.__name__}\.{one.name} .*Install a version of faststream"
    return pytest.raises(ConfigurationError, match=told)


@each
def test_a_name_that_is_gone_stops_a_broker_when_it_is_made(
    kind: Any, one: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A48: nothing fails open: a FastStream that would go past us is refused in words."""
    check = seam.check

    def without(broker: Any, names: tuple[Name, ...]) -> None:
        if one.name in vars(broker):
            del vars(broker)[one.name]
        elif one.name in (fields := vars(one.owner).get("__dataclass_fields__", {})):
            kept = {name: fields[name] for name in fields if name != one.name}
            monkeypatch.setattr(one.owner, "__dataclass_fields__", kept)
            monkeypatch.delattr(one.owner, one.name, raising=False)
        else:
            monkeypatch.delattr(one.owner, one.name)
            for base in one.owner.__mro__[1:]:
                monkeypatch.delattr(base, one.name, raising=False)
        check(broker, names)

    monkeypatch.setattr(seam, "check", without)
    with refusal(one):
        kind(watchword=agent())
    monkeypatch.undo()
    kind(watchword=agent())


def something_else(_self: object, _something: object) -> None:
    """Stand where another function was."""


@pytest.mark.parametrize("other", [7, something_else])
@each
def test_a_function_of_another_shape_is_one_that_is_gone(
    kind: Any, one: Name, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A48: where a function takes something else now, or is not a function, nothing is guessed."""
    if one.parameters is None:
        return
    monkeypatch.setattr(one.owner, one.name, other)
    with refusal(one):
        kind(watchword=agent())


def test_consumers_that_are_made_in_another_way_are_refused() -> None:
    """A48: only what makes aiokafka's own consumer can be made to make ours."""
    with refusal(seam.KAFKA[1]):
        seam.consumer_options(KafkaBrokerConfig())


OVERRIDDEN = {one.name for _, one in LISTED if one.why.endswith("overridden")}


@pytest.mark.parametrize("path", sorted(Path(inspect.getfile(seam)).parent.glob("*.py")), ids=lambda path: path.stem)
def test_nobody_else_uses_a_private_name(path: Path) -> None:
    """A private name of FastStream's stands in the seam alone, or is a method that is listed as overridden."""
    if path.stem == "_seam":
        return
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert "._" not in (node.module or "")
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner = node.value
            own = isinstance(owner, ast.Name) and owner.id == "self"
            parent = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
            assert own or (parent and node.attr in OVERRIDDEN), node.attr
