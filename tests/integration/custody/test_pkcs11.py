"""Keys in a real token, of SoftHSM: sessions that die, PINs that do not fit, keys that are made and named."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pkcs11 as library
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11 import exceptions as pkcs11_errors

from tests.custody.softhsm import SoftHsm
from watchword import Algorithm, ConfigurationError, Policy, SigningKey, Unavailable
from watchword.jwk import to_jwk
from watchword.keys import public_half
from watchword.spi import Context
from watchword_adapters.signers import pkcs11, pkcs11_module
from watchword_adapters.signers.held import HELD, HeldKey

ALICE = "agent://acme/alice"
_AWAY = (
    r"does not answer \(\w+\): check|has no token labelled 'agents'|it cannot be initialized \(GeneralError\): check"
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Give what a plug-in is given."""
    return Context(realm="prod", directory=tmp_path, clock=time.time, policy=Policy(), warn=lambda *_, **__: None)


@pytest.fixture
def options(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the settings of a key that is not made yet; no session of another test's is left."""
    monkeypatch.setenv("PLANNER_PIN", softhsm.pin)
    library_here = pkcs11_module.module(softhsm.module)
    library_here.close("agents")
    library_here._next_start = 0.0
    return {
        "module": softhsm.module, "token": "agents", "key": f"planner-{os.urandom(4).hex()}", "pin_env": "PLANNER_PIN",
        "timeout": "30s",
    }  # fmt: skip


def verifies(key: HeldKey, signature: bytes, data: bytes) -> bool:
    """Return True if a signature is that of a key."""
    return public_half(key, ALICE).verifies(signature, data)


def killed(key: HeldKey) -> Any:
    """Return the token's session, logged out and closed behind its user's back."""
    custodian: Any = key._custodian
    session = custodian.module._sessions["agents"]
    session.close()
    return session


def test_a_kind_that_tokens_do_not_make_is_refused(options: dict[str, Any], context: Context) -> None:
    """Promise: ML-DSA keys are not made there, and the error says which are."""
    with pytest.raises(ConfigurationError, match="ml-dsa-44 keys cannot be made in tokens: use ed25519 or esp256"):
        pkcs11.generate(options, context, Algorithm.ML_DSA_44)


@pytest.mark.parametrize("algorithm", HELD)
async def test_a_key_that_is_made_in_the_token_stays_there(
    options: dict[str, Any], context: Context, algorithm: Algorithm
) -> None:
    """It signs, it cannot be read, and nothing is made in its place."""
    key = pkcs11.generate(options, context, algorithm)
    assert key.algorithm is algorithm
    assert verifies(key, await key.sign(b"x"), b"x")
    custodian: Any = key._custodian
    private = custodian.module._sessions["agents"].get_key(object_class=ObjectClass.PRIVATE_KEY, label=options["key"])
    assert (private[Attribute.SENSITIVE], private[Attribute.EXTRACTABLE]) == (True, False)
    with pytest.raises(ConfigurationError, match=r"there is already a private key labelled .*: choose another name"):
        pkcs11.generate(options, context, algorithm)


async def test_a_session_that_died_is_opened_again(options: dict[str, Any], context: Context) -> None:
    """A token that was pulled out and put back, or a server that started over, costs no message."""
    key = pkcs11.generate(options, context, Algorithm.ED25519)
    for _ in range(3):
        killed(key)
        assert verifies(key, await key.sign(b"x"), b"x")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # python-pkcs11's, of the dead session
def test_a_session_that_died_is_no_obstacle_to_a_start(options: dict[str, Any], context: Context) -> None:
    """A key that finds its token's session dead, another key of the process say, opens another."""
    key = pkcs11.generate(options, context, Algorithm.ED25519)
    killed(key)
    assert pkcs11.from_options(options, context).key_id == key.key_id


async def test_a_library_that_began_anew_is_no_loss(options: dict[str, Any], context: Context) -> None:
    """The application may end the library's work for itself; ours continues."""
    key = pkcs11.generate(options, context, Algorithm.ESP256)
    library.lib(options["module"]).finalize()
    assert verifies(key, await key.sign(b"x"), b"x")


def _moved(softhsm: SoftHsm, what: str) -> list[tuple[Path, Path]]:
    """Return what is renamed to take the tokens away, and where to."""
    tokens = softhsm.config.parent / "tokens"
    if what == "all":
        return [(tokens, tokens.with_name("away"))]
    return [(one, tokens.with_name(f"away-{one.name}")) for one in tokens.iterdir()]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # python-pkcs11's, of the dead session
@pytest.mark.parametrize("what", ["all", "each"])
async def test_a_token_that_comes_back_signs_again(
    options: dict[str, Any], context: Context, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Promise: while it is away, each message fails with the reason; once it is back, the agent signs again."""
    now = [1000.0]
    monkeypatch.setattr(pkcs11_module, "monotonic", lambda: now[0])
    key = pkcs11.generate(options, context, Algorithm.ED25519)
    begun = list[float]()
    monkeypatch.setattr(pkcs11_module.Module, "_finalize", _noting(pkcs11_module.Module._finalize, now, begun))
    moved = _moved(softhsm, what)
    for place, away in moved:
        place.rename(away)
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match=_AWAY):
                await key.sign(b"x")
    finally:
        for place, away in moved:
            away.rename(place)
    assert begun == [1000.0]  # not for each message: other keys of the process use the library, too
    now[0] += pkcs11_module.PAUSE
    for _ in range(3):
        assert verifies(key, await key.sign(b"x"), b"x")
    assert len(begun) <= 2


def _noting(real: Any, now: list[float], begun: list[float]) -> Any:
    def finalize(self: pkcs11_module.Module) -> None:
        begun.append(now[0])
        real(self)

    return finalize


async def test_a_token_that_is_away_takes_no_other_along(
    options: dict[str, Any], context: Context, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another token of the library is opened again, and no message of its key is lost."""
    monkeypatch.setattr(pkcs11_module, "monotonic", iter(range(0, 10_000, 100)).__next__)
    softhsm.make_token(label := f"spare-{os.urandom(4).hex()}")
    tokens = softhsm.config.parent / "tokens"
    before = set(tokens.iterdir())
    softhsm.make_token(gone := f"gone-{os.urandom(4).hex()}")
    (place,) = set(tokens.iterdir()) - before
    library.lib(softhsm.module).reinitialize()  # SoftHSM looks for tokens when it begins
    stays = pkcs11.generate(options | {"token": label}, context, Algorithm.ED25519)
    goes = pkcs11.generate(options | {"token": gone}, context, Algorithm.ED25519)
    away = place.rename(tokens.with_name("gone"))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await goes.sign(b"x")
        assert verifies(stays, await stays.sign(b"x"), b"x")
    away.rename(place)
    assert verifies(goes, await goes.sign(b"x"), b"x")


async def test_two_keys_of_one_token_share_its_login(
    options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second key, by the settings that are followed say, neither logs the first one out nor needs a second login."""
    first = pkcs11.generate(options, context, Algorithm.ED25519)
    other = pkcs11.generate(options | {"key": options["key"] + "-2"}, context, Algorithm.ESP256)
    for key in (first, other, first):
        assert verifies(key, await key.sign(b"x"), b"x")
    assert first._workers is other._workers
    monkeypatch.setenv("PLANNER_PIN", "")  # and nobody asks for it while there is a session
    assert verifies(first, await first.sign(b"x"), b"x")


async def test_an_application_that_has_logged_in_itself_is_no_obstacle(
    options: dict[str, Any], context: Context, softhsm: SoftHsm
) -> None:
    """A login holds for all sessions of a process: that of the application is used where there is one."""
    key = pkcs11.generate(options, context, Algorithm.ED25519)
    killed(key)
    own = library.lib(softhsm.module).get_token(token_label="agents").open(user_pin=softhsm.pin)
    try:
        assert verifies(key, await key.sign(b"x"), b"x")
    finally:
        own.close()
    assert verifies(key, await key.sign(b"x"), b"x")


async def test_a_refused_pin_is_not_tried_again(
    options: dict[str, Any], context: Context, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an agent that continues to send does not lock the token; another PIN is tried at once."""
    softhsm.make_token(token := f"spare-{os.urandom(4).hex()}")
    library.lib(softhsm.module).reinitialize()  # SoftHSM looks for tokens when it begins
    chosen, tried = options | {"token": token}, list[str]()
    monkeypatch.setattr(pkcs11_module.Module, "_token", _counting(pkcs11_module.Module._token, tried))
    monkeypatch.setenv("PLANNER_PIN", "wrong-s3cret")
    with pytest.raises(ConfigurationError, match="the token refuses the PIN") as caught:
        pkcs11.generate(chosen, context, Algorithm.ED25519)
    for _ in range(5):
        with pytest.raises(ConfigurationError, match="refused this PIN before") as again:
            pkcs11.generate(chosen, context, Algorithm.ED25519)
    assert tried == [token]
    assert "s3cret" not in f"{caught.value} {again.value}"
    monkeypatch.setenv("PLANNER_PIN", softhsm.pin)
    key = pkcs11.generate(chosen, context, Algorithm.ED25519)
    assert verifies(key, await key.sign(b"x"), b"x")


def _counting(real: Any, tried: list[str]) -> Any:
    def token(self: pkcs11_module.Module, label: str) -> Any:
        tried.append(label)
        return real(self, label)

    return token


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"module": "/none.so"}, "module /none.so: no such file; install the token's PKCS#11 library"),
        ({"module": "/etc/hostname"}, "module /etc/hostname: OS exception while loading /etc/hostname: "),
        ({"token": "none"}, "the module has no token labelled 'none'"),
        ({"key": "none"}, "no private key labelled 'none'; 'watchword key generate' makes one"),
        ({"key": None}, "key: missing; write the label of the key in the token, or its id"),
        ({"id": "xyz"}, "id: "),
        ({"pin_env": None}, 'pin: missing; write pin_env = "VARIABLE" or pin_file = "PATH"'),
        ({"pin_env": "NO_SUCH_PIN", "token": "other"}, "pin_env: there is no variable of this name, or it is empty"),
        ({"pin": "1234"}, "pin: "),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], context: Context, changes: dict[str, Any], told: str) -> None:
    """Each says what to write or to install."""
    chosen = {name: value for name, value in (options | changes).items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        pkcs11.from_options(chosen, context)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_keys_of_one_name_are_told_apart_by_their_ids(options: dict[str, Any], context: Context) -> None:
    """Which one signs is never left to the order in which a token lists them."""
    ids = [os.urandom(4).hex() for _ in range(2)]
    made = [pkcs11.generate(options | {"id": one}, context, Algorithm.ED25519).key_id for one in ids]
    with pytest.raises(ConfigurationError, match=r"several keys are labelled .*: write both key and id"):
        pkcs11.from_options(options, context)
    assert [pkcs11.from_options(options | {"id": one}, context).key_id for one in ids] == made
    by_id = {name: value for name, value in options.items() if name != "key"} | {"id": ids[1]}
    assert pkcs11.from_options(by_id, context).key_id == made[1]


def test_several_tokens_of_one_label_are_refused(options: dict[str, Any], context: Context, softhsm: SoftHsm) -> None:
    """Nor is the token left to chance."""
    label = f"twin-{os.urandom(4).hex()}"
    for _ in range(2):
        softhsm.make_token(label)
    library.lib(softhsm.module).reinitialize()
    with pytest.raises(ConfigurationError, match=f"several tokens are labelled '{label}'"):
        pkcs11.from_options(options | {"token": label}, context)


async def test_a_private_key_alone_signs_by_the_published_half(
    options: dict[str, Any], context: Context, tmp_path: Path
) -> None:
    """Smart cards often have no public object: then its file is named, and the start sees that it fits."""
    key = pkcs11.generate(options, context, Algorithm.ESP256)
    (tmp_path / "planner.jwk").write_text(json.dumps(to_jwk(public_half(key, ALICE))))
    custodian: Any = key._custodian
    session = custodian.module.writable("agents", custodian._pin)
    session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=options["key"]).destroy()
    custodian.module.close("agents")
    with pytest.raises(ConfigurationError, match="has no public key beside it"):
        pkcs11.from_options(options, context)
    again = pkcs11.from_options(options | {"public": "planner.jwk"}, context)
    assert verifies(key, await again.sign(b"x"), b"x")
    with pytest.raises(ConfigurationError, match="no private key labelled 'none'; 'watchword key generate' makes one"):
        pkcs11.from_options(options | {"public": "planner.jwk", "key": "none"}, context)


@pytest.mark.parametrize("curve", ["06052b81040022", "06052b8104000a"], ids=["P-384", "secp256k1"])
def test_a_key_of_another_curve_is_refused(
    options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch, curve: str
) -> None:
    """Also one whose points are as long as those of P-256."""
    monkeypatch.setitem(pkcs11.CURVES, Algorithm.ESP256, (KeyType.EC, bytes.fromhex(curve)))
    with pytest.raises(ConfigurationError, match="the token's key is neither Ed25519 nor P-256"):
        pkcs11.generate(options, context, Algorithm.ESP256)


@pytest.mark.parametrize("algorithm", HELD)
def test_a_key_that_may_not_sign_is_told(options: dict[str, Any], context: Context, algorithm: Algorithm) -> None:
    """Made for something else (CKA_SIGN is false), it is refused at the start, by name."""
    custodian = pkcs11._of(context.validate(pkcs11.Options, options), context)
    session = custodian.module.writable("agents", custodian._pin)
    kind, curve = pkcs11.CURVES[algorithm]
    session.create_domain_parameters(kind, {Attribute.EC_PARAMS: curve}, local=True).generate_keypair(
        store=True, label=options["key"], capabilities=MechanismFlag.VERIFY
    )
    with pytest.raises(ConfigurationError, match=r"the private key labelled .* may not sign: make one with CKA_SIGN"):
        pkcs11.from_options(options, context)


@pytest.mark.parametrize("algorithm", HELD)
def test_a_public_half_of_another_algorithm_is_told(
    options: dict[str, Any], context: Context, tmp_path: Path, algorithm: Algorithm
) -> None:
    """Nothing is asked of the token that its key cannot do."""
    (other,) = set(HELD) - {algorithm}
    (tmp_path / "other.jwk").write_text(json.dumps(to_jwk(SigningKey.generate(other).verification_key(ALICE))))
    pkcs11.generate(options, context, algorithm)
    with pytest.raises(
        ConfigurationError, match=f"the key labelled .* is not an {other.label} key: name the file of its"
    ):
        pkcs11.from_options(options | {"public": "other.jwk"}, context)


async def test_a_pin_that_is_changed_is_tried_at_once(
    options: dict[str, Any], context: Context, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: new settings with a wrong PIN are refused though a session is open, and the key that signs continues."""
    softhsm.make_token(token := f"spare-{os.urandom(4).hex()}")
    library.lib(softhsm.module).reinitialize()
    chosen = options | {"token": token}
    key = pkcs11.generate(chosen, context, Algorithm.ED25519)
    monkeypatch.setenv("OTHER_PIN", "wrong-s3cret")
    for told in ("the token refuses the PIN", "refused this PIN before"):
        with pytest.raises(ConfigurationError, match=told):
            pkcs11.from_options(chosen | {"pin_env": "OTHER_PIN"}, context)
        assert verifies(key, await key.sign(b"x"), b"x")
    monkeypatch.setenv("OTHER_PIN", softhsm.pin)
    assert pkcs11.from_options(chosen | {"pin_env": "OTHER_PIN"}, context).key_id == key.key_id
    monkeypatch.setenv("PLANNER_PIN", "wrong-s3cret")  # no way back: the open session is left as it is
    monkeypatch.setenv("OTHER_PIN", "wrong-s3cret-2")
    assert pkcs11.from_options(chosen | {"pin_env": "OTHER_PIN"}, context).key_id == key.key_id
    assert verifies(key, await key.sign(b"x"), b"x")


async def test_a_key_that_is_gone_is_an_outage(options: dict[str, Any], context: Context) -> None:
    """Signing with a key that was destroyed raises Unavailable, which says that the token has no such key."""
    key = pkcs11.generate(options, context, Algorithm.ED25519)
    custodian: Any = key._custodian
    session = custodian.module.writable("agents", custodian._pin)
    session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=options["key"]).destroy()
    with pytest.raises(Unavailable, match="no private key labelled"):
        await key.sign(b"x")


def test_a_token_that_cannot_make_a_key_says_so(
    options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many know no Ed25519 yet."""
    monkeypatch.setitem(pkcs11.CURVES, Algorithm.ED25519, (KeyType.EC, b"\x05\x00"))
    with pytest.raises(ConfigurationError, match="the token cannot make an ED25519 key: "):
        pkcs11.generate(options, context, Algorithm.ED25519)


def test_a_forked_child_signs_by_sessions_of_its_own(options: dict[str, Any], context: Context) -> None:
    """A pre-forking server signs in each of its processes, the parent included."""
    pkcs11.generate(options, context, Algorithm.ED25519)
    program = f"""
import asyncio, os, time
from pathlib import Path
from watchword import Policy
from watchword.keys import public_half
from watchword.spi import Context
from watchword_adapters.signers import pkcs11
context = Context(realm="prod", directory=Path("."), clock=time.time, policy=Policy(), warn=print)
key = pkcs11.from_options({options!r}, context)
child = os.fork()
for _ in range(3):
    assert public_half(key, "a").verifies(asyncio.run(key.sign(b"x")), b"x")
if child:
    print(os.waitpid(child, 0)[1])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - ours
    assert (run.returncode, run.stdout) == (0, "0\n"), run.stderr


@pytest.mark.parametrize(
    "kind", [pkcs11_errors.PinLocked, pkcs11_errors.PinExpired, pkcs11_errors.UserPinNotInitialized]
)
def test_a_pin_that_only_the_officer_mends_is_told(
    options: dict[str, Any], context: Context, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Another try would not help."""

    class Token:
        def open(self, **_: object) -> None:
            raise kind

    monkeypatch.setattr(pkcs11_module.Module, "_token", lambda *_: Token())
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}: the token's security officer sets the PIN"):
        pkcs11.from_options(options, context)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            pkcs11_errors.MechanismInvalid,
            ConfigurationError("the token does not sign ed25519 with this key: MechanismInvalid"),
        ),
        (pkcs11_errors.DeviceError, Unavailable("signing", "the token does not answer (DeviceError): check that")),
    ],
)
def test_what_a_token_cannot_do_is_told_from_one_that_is_away(
    options: dict[str, Any],
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    told: ConfigurationError | Unavailable,
) -> None:
    """The first is a mistake in the settings, the second may pass."""
    pkcs11.generate(options, context, Algorithm.ED25519)

    def failing(*_: object) -> None:
        raise kind

    monkeypatch.setattr(pkcs11.TokenKey, "_signing_key", failing)
    with pytest.raises(type(told)) as caught:
        pkcs11.from_options(options, context)
    assert getattr(told, "detail", str(told)) in str(caught.value)
