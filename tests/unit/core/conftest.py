"""What tests of the core share."""

import pytest

from watchword import VerificationKey


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the signatures that are checked in the test, one entry a check."""
    checked: list[bytes] = []
    verifies = VerificationKey.verifies

    def counting(self: VerificationKey, signature: bytes, data: bytes) -> bool:
        checked.append(signature)
        return verifies(self, signature, data)

    monkeypatch.setattr(VerificationKey, "verifies", counting)
    return checked
