import math
from typing import Any

import pytest
from pydantic import ValidationError

from watchword import Alias, Allow, ConfigurationError, Mode, Policy, Rate
from watchword.settings import Settings, parse_duration, parse_size
from watchword.spi import HeaderStyle, QuarantineLimits

SLIPS = (
    "agent:/acme/planner", "agent:acme/planner", "agent//acme/planner", "agent/acme/planner", "//acme/planner",
    "/acme/planner", "://acme/planner", "agent://", "agent:///planner", "agent://acme//planner", "agent://acme/planner/",
    "agent://acme/ planner", "agent:\\\\acme\\planner", "agent:", "Agent://acme/planner",
)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1.5 m", 90), ("90", 90), (45, 45), (0.5, 0.5), (0, 0)],
)
def test_a_duration_is_read_in_seconds(written: object, seconds: float) -> None:
    """Units s, m, h and d are understood, and a bare number is seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "m", "5 minutes", "-5s", "1e3s", "٣s", -1, True, math.inf, math.nan, 10**400, None, [5]]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    """No sloppy duration is guessed at: a wrong one would widen the replay window."""
    with pytest.raises(ValueError, match='write a duration as "30s"'):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("256MiB", 268435456), ("512 MB", 512000000), ("1.5GB", 1500000000), ("64KiB", 65536), ("2KB", 2000),
        ("1GiB", 1 << 30), ("4096", 4096), ("4096B", 4096), (1000000, 1000000),
    ],
)  # fmt: skip
def test_a_size_is_read_in_bytes(written: object, size: int) -> None:
    """Decimal and binary units are understood as their writers mean them, and a bare number is bytes."""
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written", ["", "MB", "256 megabytes", "-1MB", "1e6", "1iB", "256mb", "٣MB", -1, True, 1.5, None]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    """No sloppy size is guessed at: one that is too small would refuse honest messages."""
    with pytest.raises(ValueError, match='write a size as "256MiB"'):
        parse_size(written)


@pytest.mark.parametrize(
    "name",
    [
        "agent://acme/planner",
        "agent://a",
        "spiffe://acme.org/ns/a",
        "planner",
        "acme/planner",
        "urn:acme:planner",
        "agent",
        "agent-7",
    ],
)
def test_any_other_name_may_be_a_principals(name: str) -> None:
    """Only what looks like a slip of the pen is refused: the format lets an agent have any name."""
    settings = Settings.model_validate({"realm": "prod", "principal": name, "policy": {"contained": [name]}})
    assert settings.to_policy().contained == {settings.principal}


def test_defaults_are_the_policys_own() -> None:
    """A file with only a realm gives the policy that the core has by default."""
    assert Settings(realm="prod").to_policy() == Policy()


def test_every_setting_reaches_the_policy() -> None:
    """What is written in the tables is what the verifier demands."""
    settings = Settings.model_validate(
        {
            "realm": "prod",
            "policy": {
                "mode": "observe",
                "max_age": "1m",
                "max_skew": "1s",
                "max_hold": "2s",
                "contained": ["agent://evil"],
                "allow": [
                    {"principal": "agent://a", "channels": ["nats://prod/a.>"], "rate": "2/s"},
                    {"principal": "agent://b", "channels": ["kafka://prod/b"]},
                ],
                "aliases": [{"channel": "kafka://prod/src.b", "signed_for": "kafka://src/b"}],
            },
            "replay": {"max_lag": "1d", "memory": "64MiB"},
        }
    )
    assert settings.to_policy() == Policy(
        mode=Mode.OBSERVE,
        max_age=60,
        max_skew=1,
        max_hold=2,
        max_lag=86400,
        memory=64 << 20,
        contained=frozenset({"agent://evil"}),
        allow=(Allow("agent://a", ("nats://prod/a.>",), Rate(2, 1.0)), Allow("agent://b", ("kafka://prod/b",))),
        aliases=(Alias("kafka://prod/src.b", "kafka://src/b"),),
    )


LOG = "nats://prod/watchword.control"


def controlled(**changes: object) -> dict[str, Any]:
    """Return a control log with one operator, as changed."""
    operator = {"principal": "agent://acme/oncall", "may": ["contain"], "over": ["**"]} | changes
    return {"channel": LOG, "operators": [operator]}


def test_a_control_log_that_could_be_rolled_back() -> None:
    """Without a directory nothing would be kept of what operators said."""
    settings = Settings.model_validate({"realm": "prod", "control": controlled()})
    channel = settings.to_control()
    long = Settings.model_validate({"realm": "prod", "control": controlled() | {"max_staleness": "2d"}})
    assert long.control is not None
    assert long.control.max_staleness == 172_800
    assert channel is not None
    assert channel.uri == LOG
    nowhere = Settings.model_validate({"realm": "prod", "control": controlled(), "replay": {"state": ""}})
    with pytest.raises(ConfigurationError, match="leaves no directory to store operators' statements"):
        nowhere.to_control()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"realm": "Prod"}, "use 1 to 63 of a-z"),
        ({"realm": "prod", "principal": "a\nb"}, "without control characters"),
        *(({"realm": "prod", "principal": name}, "a scheme, '://' and names separated by one '/'") for name in SLIPS),
        *(({"realm": "prod", "policy": {"contained": ["agent://a", name]}}, "contained.1") for name in SLIPS),
        *(({"realm": "prod", "policy": {"allow": [{"principal": name, "channels": []}]}}, "allow.0") for name in SLIPS),
        ({"realm": "prod", "policy": {"contained": ["a\x00"]}}, "without control characters"),
        ({"realm": "prod", "policy": {"contained": ["agent://acme/plan*"]}}, "may stand for a whole part"),
        ({"realm": "prod", "policy": {"contained": ["agent://acme/**/x"]}}, r"final '\*\*' for the rest"),
        (
            {"realm": "prod", "policy": {"allow": [{"principal": "agent:/acme/**", "channels": []}]}},
            "allow.0.principal",
        ),
        ({"realm": "prod", "policy": {"allow": [{"principal": "agent://a/x*", "channels": []}]}}, "allow.0.principal"),
        ({"realm": "prod", "policy": {"allow": [{"principal": "a", "channels": [], "rate": "fast"}]}}, "as '200/s'"),
        ({"realm": "prod", "policy": {"max_age": "soon"}}, "write a duration"),
        ({"realm": "prod", "replay": {"memory": "much"}}, "write a size"),
        ({"realm": "prod", "policy": {"mode": "off"}}, "'enforce' or 'observe'"),
        ({"realm": "prod", "policy": {"contained": "a"}}, "in the environment as JSON"),
        ({"realm": "prod", "polcy": {}}, "Extra inputs"),
        ({"realm": "prod", "control": controlled(over=["agent://acme/plan*"])}, "may stand for a whole part"),
        ({"realm": "prod", "control": controlled(may=[])}, "write what this operator may state, and over whom"),
        ({"realm": "prod", "control": controlled(over=[])}, "write what this operator may state, and over whom"),
        ({"realm": "prod", "control": {"channel": LOG}}, "no operators: name one"),
        ({"realm": "prod", "control": controlled() | {"max_staleness": "0s"}}, "write 1 s or more"),
        (
            {"realm": "prod", "control": {"channel": LOG, "operators": controlled()["operators"] * 2}},
            "two entries for operator 'agent://acme/oncall'",
        ),
    ],
)
def test_a_wrong_value_is_refused(document: dict[str, object], complaint: str) -> None:
    """No mistake in a setting passes for something else."""
    with pytest.raises(ValidationError, match=complaint):
        Settings.model_validate(document)


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({"max_age": "30d"}, "max_age of 2.592e"),
        ({"max_skew": "1h"}, "max_skew of 3600 s"),
        ({"max_hold": "1h"}, "max_hold of 3600 s"),
        ({"allow": [{"principal": "a", "channels": ["nats://prd/a"]}]}, "not in this process's realm 'prod'"),
        ({"allow": [{"principal": "a", "channels": ["amqp://prod/a"]}]}, "policy.allow: channel 'amqp"),
        ({"allow": [{"principal": "a", "channels": []}]}, "name at least one channel"),
        ({"allow": [{"principal": "a", "channels": ["nats://prod/task*"]}]}, "for one whole token"),
        ({"allow": [{"principal": "a", "channels": ["kafka://prod/*.tasks"]}]}, "at its end matches any ending"),
    ],
)
def test_an_unsafe_limit_or_a_rule_that_never_applies_is_refused(policy: dict[str, object], complaint: str) -> None:
    """Limits have ceilings, and a rule for another realm is a slip of the pen, not a rule."""
    settings = Settings.model_validate({"realm": "prod", "policy": policy})
    with pytest.raises(ConfigurationError, match=complaint):
        settings.to_policy()


def test_patterns_are_read() -> None:
    """Principals and topics may be patterns, in rules, in containment and for modes."""
    policy = Settings.model_validate(
        {
            "realm": "prod",
            "policy": {
                "contained": ["agent://evil/**"],
                "allow": [{"principal": "agent://acme/*", "channels": ["kafka://prod/orders.*", "kafka://prod/*"]}],
                "channels": [{"match": "kafka://prod/.*", "mode": "observe"}],
            },
        }
    ).to_policy()
    assert policy.contained == {"agent://evil/**"}
    assert policy.allow == (Allow("agent://acme/*", ("kafka://prod/orders.*", "kafka://prod/*")),)
    assert policy.channels[0].match == "kafka://prod/.*"


def test_options_of_a_plug_in_are_kept_apart() -> None:
    """A table that names a plug-in hands its further names on, and nothing of its own."""
    settings = Settings.model_validate({"realm": "prod", "signer": {"source": "vault", "path": "x"}})
    assert settings.signer is not None
    assert settings.signer.options == {"path": "x"}


def test_without_a_table_nothing_is_quarantined() -> None:
    """Where no quarantine is set up, none is made up; where one is, it has the core's caps."""
    assert Settings(realm="prod").to_quarantine() is None
    chosen = Settings.model_validate({"realm": "prod", "quarantine": {"kafka": "agents.quarantine"}}).to_quarantine()
    assert chosen is not None
    assert (chosen.kafka, chosen.nats, chosen.header_style) == ("agents.quarantine", None, HeaderStyle.WATCHWORD)
    assert chosen.to_limits() == QuarantineLimits()


def test_every_setting_reaches_the_quarantine() -> None:
    """What is written in the table is what caps the copies."""
    written = {
        "nats": "quarantine.agents",
        "rate": "30/m",
        "bytes_per_second": 2048,
        "max_size": 4096,
        "header_style": "spring",
    }
    chosen = Settings.model_validate({"realm": "prod", "quarantine": written}).to_quarantine()
    assert chosen is not None
    assert (chosen.nats, chosen.header_style) == ("quarantine.agents", HeaderStyle.SPRING)
    assert chosen.to_limits() == QuarantineLimits(rate=Rate(30, 60.0), bytes_per_second=2048, max_size=4096)
