"""The native engine and its stand-in at once: whatever is asked of one is asked of the other, and both say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from tests.support import stand_in
from watchword import engine

if TYPE_CHECKING:
    from watchword.engine import Native

_KINDS: Final = {"Run", "Layout", "Tree", "Hasher", "Entries", "Bucket"}


class Beside:
    """One thing of the native engine's, and the stand-in's."""

    def __init__(self, one: Any, other: Any) -> None:
        self.__dict__.update(one=one, other=other)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.one, name, value)
        setattr(self.other, name, value)

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        assert len(self.one) == len(self.other)
        return len(self.one)

    def __getattr__(self, name: str) -> Any:
        one, other = getattr(self.one, name), getattr(self.other, name)
        if callable(one):
            return Beside(one, other)
        assert one == other or name == "__version__", (name, one, other)
        return one

    def __call__(self, *given: Any) -> Any:
        """Call both."""

        def part(of: str) -> list[Any]:
            return [getattr(one, of) if isinstance(one, Beside) else one for one in given]

        one, other = self.one(*part("one")), self.other(*part("other"))
        if type(one).__name__ in _KINDS:
            return Beside(one, other)
        assert one == other, (self.one, given, one, other)
        return one


def native_or_stand_in() -> Native:
    """Return the stand-in, and where the native engine is installed that one beside it."""
    substitute, native = cast("Native", stand_in), engine.native()
    return substitute if native in {None, substitute} else cast("Native", Beside(native, substitute))
