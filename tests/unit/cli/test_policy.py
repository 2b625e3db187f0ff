"""``watchword policy check``: the answer is the verifier's own, and it names the rule that gave it."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

RULES = """realm = "prod"
principal = "agent://acme/cloud"
[policy]
contained = ["agent://acme/rogue", "agent://evil/**"]

[[policy.allow]]
principal = "agent://acme/**"              # everybody
channels = ["nats://prod/>"]
[[policy.allow]]
principal = "agent://acme/*"
channels = [
  "kafka://prod/orders.*",
  "nats://prod/tasks.>",
]
rate = "200/s"

[ [ policy . allow ] ]
principal = "agent://evil/x"
channels = ["kafka://prod/tasks"]
[[policy.channels]]
match = "nats://prod/audit.>"
mode = "observe"
"""


@pytest.fixture(autouse=True)
def rules(directory: Path) -> Path:
    """Write settings with rules, and without keys, which nobody needs for this."""
    path = directory / "watchword.toml"
    path.write_text(RULES.replace("[ [ policy . allow ] ]", "[[ policy . allow ]]"))
    return path


def test_the_rule_that_holds_is_shown_as_it_is_written(run: Run) -> None:
    """The user reads the verdict, the rule with its number, line and text, its rate, and who else matched."""
    ended = run("policy", "check", "agent://acme/planner", "nats://prod/tasks.scale")
    assert ended.code == 0
    assert (
        ended.out
        == """allowed: agent://acme/planner may speak on nats://prod/tasks.scale
rule: policy.allow[1], line 9 of watchword.toml
  [[policy.allow]]
  principal = "agent://acme/*"
  channels = [
    "kafka://prod/orders.*",
    "nats://prod/tasks.>",
  ]
  rate = "200/s"
rate: 200/s, for this principal alone, in each log
contained: no
also matching, but less specific or written later: policy.allow[0]
"""
    )


def test_programs_read_the_same(run: Run) -> None:
    """As JSON there is one object, in which all of it has a name."""
    ended = run("policy", "check", "agent://acme/planner", "kafka://prod/orders.eu", "--json")
    (found,) = ended.lines
    rule = found.pop("rule")
    assert (ended.code, found) == (
        0,
        {
            "allowed": True,
            "principal": "agent://acme/planner",
            "channel": "kafka://prod/orders.eu",
            "reason": None,
            "rules": 3,
            "rate": "200/s",
            "min_trust": None,
            "contained": None,
            "other_rules": [],
            "mode": "enforce",
            "control": False,
        },
    )
    assert isinstance(rule, dict)
    assert (rule["number"], rule["line"], rule["principal"]) == (1, 9, "agent://acme/*")
    assert rule["channels"] == ["kafka://prod/orders.*", "nats://prod/tasks.>"]
    assert rule["text"].startswith("[[policy.allow]]\n")


@pytest.mark.parametrize(
    ("principal", "channel", "reason", "told"),
    [
        ("agent://acme/planner", "kafka://prod/tasks", "not_permitted", "rule: none of 3 lets this principal speak"),
        ("agent://other/planner", "nats://prod/a", "not_permitted", "contained: no\n"),
        ("agent://acme/rogue", "nats://prod/a", "contained", "yes, by 'agent://acme/rogue' in [policy] contained"),
        ("agent://evil/x", "kafka://prod/tasks", "contained", "yes, by 'agent://evil/**' in [policy] contained"),
        ("agent://evil/y", "kafka://prod/tasks", "not_permitted", "yes, by 'agent://evil/**'"),
    ],
)
def test_who_may_not_speak_gets_exit_code_1(run: Run, principal: str, channel: str, reason: str, told: str) -> None:
    """A script can tell from the code alone; the text says whether rules or containment forbid it."""
    ended = run("policy", "check", principal, channel)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith(f"not allowed: {principal} may not speak on {channel}\n")
    assert told in ended.out
    (found,) = run("policy", "check", principal, channel, "--json").lines
    assert (found["allowed"], found["reason"]) == (False, reason)


def test_a_rule_without_rate_and_a_channel_that_is_observed(run: Run) -> None:
    """No limit is said to be none, and where nothing is dropped that is said, too."""
    ended = run("policy", "check", "agent://acme/a/b", "nats://prod/audit.x")
    assert ended.out.splitlines()[-3:] == [
        "rate: no limit",
        "contained: no",
        "mode: observe, so nothing is dropped here, whatever the rules say",
    ]


def test_the_trust_that_a_rule_demands_is_told(run: Run, rules: Path) -> None:
    """As a number from 0 to 1."""
    rules.write_text(rules.read_text().replace('rate = "200/s"', "min_trust = 0.5"))
    asked = ("policy", "check", "agent://acme/planner", "nats://prod/tasks.a")
    assert "min_trust: 0.5\n" in run(*asked).out
    (found,) = run(*asked, "--json").lines
    assert found["min_trust"] == 0.5


def test_without_rules_anybody_may_speak(run: Run, rules: Path) -> None:
    """Deny by default begins with the first rule, and the command says so."""
    rules.write_text('realm = "prod"\n')
    ended = run("policy", "check", "agent://acme/planner", "kafka://prod/tasks")
    assert ended.code == 0
    assert "rule: there are none, so anyone with a known key may speak anywhere" in ended.out


def test_rules_of_the_environment_are_those_that_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment replaces the file's rules no line of the file is shown for one of them."""
    rule = {"principal": "agent://acme/größe", "channels": ["kafka://prod/tasks"], "rate": "5/h"}
    monkeypatch.setenv("WATCHWORD_POLICY__ALLOW", json.dumps([rule, rule | {"principal": "agent://*/größe"}]))
    ended = run("policy", "check", "agent://acme/größe", "kafka://prod/tasks")
    assert ended.code == 0
    assert "rule: policy.allow[0], from the environment\n  [[policy.allow]]\n  principal = " in ended.out
    assert '  rate = "5/h"\n' in ended.out
    monkeypatch.setenv("WATCHWORD_POLICY__ALLOW", json.dumps([rule] * 9))
    (found,) = run("policy", "check", "agent://acme/größe", "kafka://prod/tasks", "--json").lines
    assert found["other_rules"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_long_answers_are_cut(run: Run, rules: Path) -> None:
    """A rule of a thousand channels, and a thousand rules that match, leave an answer that can be read."""
    channels = "\n".join(f'"nats://prod/{number}",' for number in range(1000))
    one = f'[[policy.allow]]\nprincipal = "agent://acme/a"\nchannels = [\n{channels}\n]\n'
    rules.write_text(f'realm = "prod"\n{one}' + one.replace(channels, '"nats://prod/7"') * 20)
    ended = run("policy", "check", "agent://acme/a", "nats://prod/7")
    assert len(ended.out.splitlines()) == 26
    assert "  ... 984 more lines\n" in ended.out
    assert ended.out.rstrip().endswith("policy.allow[10] and 10 more")


def test_what_operators_say_is_not_asked(run: Run, rules: Path) -> None:
    """Where there is a control log, the command does not claim that nobody is contained."""
    operator = '[[control.operators]]\nprincipal = "agent://acme/oncall"\nmay = ["contain"]\nover = ["**"]\n'
    rules.write_text(f'{RULES.split("[[", maxsplit=1)[0]}[control]\nchannel = "nats://prod/control"\n{operator}')
    ended = run("policy", "check", "agent://acme/planner", "kafka://prod/tasks")
    assert "contained: not by the settings; operators on the control log were not asked\n" in ended.out


@pytest.mark.parametrize(
    ("principal", "channel", "complaint"),
    [
        ("agent://acme/*", "kafka://prod/tasks", "write one agent"),
        ("agent:/acme/x", "kafka://prod/tasks", "is not a URI"),
        ("", "kafka://prod/tasks", "write 1 to 255 bytes"),
        ("agent://acme/x", "tasks", "channel"),
        ("agent://acme/x", "nats://prod/tasks.>", "channel"),
        ("agent://acme/x", "kafka://prod/tasks*", "channel"),
        ("agent://acme/x", "kafka://prd/tasks", "write kafka://prod/..."),
    ],
)
def test_a_slip_of_the_pen_is_no_verdict(run: Run, principal: str, channel: str, complaint: str) -> None:
    """What names no agent, or no channel of these settings, is wrong use: exit code 2, and a line that says why."""
    ended = run("policy", "check", principal, channel)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert ended.err.count("\n") == 1


def test_wrong_settings_are_named(run: Run, rules: Path) -> None:
    """A mistake in a rule is reported with the name of the file that has it."""
    rules.write_text(RULES.replace("nats://prod/>", "nats://prd/>").split("[ [")[0])
    ended = run("policy", "check", "agent://acme/x", "kafka://prod/tasks")
    assert ended.code == 2
    assert ended.err.startswith("watchword: watchword.toml: policy.allow: 'nats://prd/>' is not in this")
    assert run("policy", "check", "a", "kafka://prod/tasks", "-c", "none.toml").code == 2


def test_what_is_shown_cannot_move_the_cursor(run: Run, rules: Path) -> None:
    """Characters that hide or turn round what stands beside them are escaped, wherever they come from (A31)."""
    rules.write_text(RULES.replace("# everybody", "# \u202eeverybody").split("[ [")[0])
    ended = run("policy", "check", "agent://acme/a/\u2066b", "nats://prod/a")
    assert ended.code == 0
    assert "\u202e" not in ended.out
    assert "\u2066" not in ended.out
