"""What a type checker says to users: right programs pass mypy --strict, wrong ones do not, for the stated reason."""

from tests.typing.programs import Programs

HEAD = """
from watchword import (
    MemoryKeys,
    Policy,
    Rejected,
    SigningKey,
    Unavailable,
    VerificationKey,
    VerifiedMessage,
    Watchword,
)
from watchword.spi import (
    Admission,
    Channel,
    Claim,
    Delivered,
    KeySource,
    MemoryReplayStore,
    Message,
    ObservedMessage,
    ReplayStore,
    Signed,
    Signer,
    SigningBackend,
    Verifier,
)
from typing import assert_type
"""

RIGHT = {
    "verify returns a VerifiedMessage, never a bool": """
async def use(verifier: Verifier, message: Message) -> bytes | None:
    verified = await verifier.verify(message)
    assert_type(verified, VerifiedMessage)
    assert_type(verified.principal, str)
    assert_type(verified.redelivered, bool)
    return verified.value
""",
    "admit says that observed messages may come": """
async def use(watchword: Watchword, message: Message) -> None:
    delivered = await watchword.admit(message)
    assert_type(delivered, VerifiedMessage | ObservedMessage)
    if isinstance(delivered, ObservedMessage):
        assert_type(delivered.verdict, VerifiedMessage | Rejected | Unavailable)
""",
    "sign returns a header of name and value": """
async def use(signer: Signer, message: Message) -> None:
    signed = await signer.sign(message, recipient="agent://acme/cloud")
    assert_type(signed, Signed)
    assert_type(signed.header, tuple[str, bytes | None])
""",
    "what we ship fits the ports": """
keys: KeySource = MemoryKeys()
store: ReplayStore = MemoryReplayStore(horizon=None)
backend: SigningBackend = SigningKey.generate()
""",
    "a user's own plug-ins fit the ports": """
class Keys:
    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        return None

class Store:
    async def claim(self, claim: Claim) -> Admission:
        return Admission.FIRST

class Backend:
    async def sign(self, data: bytes) -> bytes:
        return data

Verifier(realm="prod", keys=Keys(), replay=Store(), policy=Policy(), clock=lambda: 0.0)
Signer(realm="prod", principal="p", key=Backend(), clock=lambda: 0.0)
""",
}

WRONG = {
    "a verified message is not changed": (
        """
def use(verified: VerifiedMessage) -> None:
    verified.principal = "agent://acme/root"
""",
        'Property "principal" defined in "VerifiedMessage" is read-only',
    ),
    "a verified message is not subclassed": (
        """
class Mine(VerifiedMessage):
    pass
""",
        "Cannot inherit from final class",
    ),
    "what was observed is not what was verified": (
        """
async def use(watchword: Watchword, message: Message) -> VerifiedMessage:
    return await watchword.admit(message)
""",
        "Incompatible return value type",
    ),
    "an observed message has no principal of its own": (
        """
def use(observed: ObservedMessage) -> str:
    return observed.principal
""",
        'has no attribute "principal"',
    ),
    "a raw message is not a verified one": (
        """
def act(verified: VerifiedMessage) -> None: ...
def use(message: Message) -> None:
    act(message)
""",
        "incompatible type",
    ),
    "a key source must not return a bool": (
        """
class Keys:
    async def find(self, principal: str, key_id: bytes) -> bool:
        return True
keys: KeySource = Keys()
""",
        "Incompatible types in assignment",
    ),
    "there is no way to switch verification off": (
        """
Verifier(realm="prod", keys=MemoryKeys(), replay=MemoryReplayStore(horizon=None), policy=Policy(), clock=lambda: 0.0,
         verify=False)
""",
        'Unexpected keyword argument "verify"',
    ),
    "fields go by name": (
        """
Message(Channel("nats", "prod", "a"), b"")
""",
        "Too many positional arguments",
    ),
}


class TestTypes(Programs):
    """The types say what the documentation says."""

    head, right, wrong = HEAD, RIGHT, WRONG
