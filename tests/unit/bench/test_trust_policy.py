"""The figures about policy: what they count is true at any speed."""

import pytest

from benchmarks import cast
from benchmarks.trust import policy as trust_policy
from watchword import Policy
from watchword.key_budget import MOST


@pytest.mark.slow
@pytest.mark.parametrize("way", ["unordered", "ordered"])
def test_a_flood_is_shed_and_no_honest_message_is_lost(way: str) -> None:
    """The source is asked within its budget, the rest of the flood is undetermined, and all that is honest verifies."""
    found = trust_policy._flooded(way, 500)
    assert found["lookups"] == MOST
    assert found["shed"] > found["delivered"] * (trust_policy.FORGED_PER_HONEST - 1)
    assert found["delivered"] > 1
    assert found["honest_share"] > 0


def test_a_rate_is_kept_to_a_few_parts_in_a_hundred() -> None:
    """What an agent at machine speed is given is what its rate allows, over each length of time."""
    assert abs(trust_policy.rate_error(small=True)) <= 0.05


@pytest.mark.parametrize("count", trust_policy.RULES)
def test_the_last_of_many_rules_is_the_one_that_holds(count: int) -> None:
    """The agent that is measured matches the last of ``count`` rules, and no other."""
    rules = trust_policy._rules(count)
    policy = Policy(allow=rules)
    assert len(rules) == count
    channel = cast.messages(100, 1)[0].channel
    assert policy.rules_matching(cast.principal(), channel) == [count - 1]


def test_ten_rules_and_ten_thousand_are_compared() -> None:
    """A small run gives a ratio."""
    assert trust_policy.rules_10000_over_10(small=True) > 0
