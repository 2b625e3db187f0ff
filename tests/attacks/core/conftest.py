"""What attacks on the core share with its unit tests."""

from tests.unit.core.conftest import signatures

__all__ = ["signatures"]
