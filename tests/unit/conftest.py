"""What all unit tests share."""

import pytest

from watchword import engine


@pytest.fixture
def python_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Python engine do all the work."""
    monkeypatch.setattr(engine, "native", lambda: None)
