"""How fast principals may speak: what buckets are kept, for how long, and who shares one."""

from watchword import Allow, Rate
from watchword.rates import IssueRates, RateLimiter

EVERYBODY = Allow("agent://acme/**", ("nats://prod/a",), Rate(2, 10.0))
A, B = "agent://acme/a", "agent://acme/b"


def spent(limiter: RateLimiter, who: str, at: float, *, times: int = 9, log: str = "log", **options: float) -> int:
    """Return how many of some messages find a token."""
    return sum(limiter.spend(EVERYBODY, who, log, at=at, **options) for _ in range(times))


def test_two_principals_under_one_pattern_share_no_budget() -> None:
    """Promise (A24): what one agent spends, no other lacks, however alike their names."""
    limiter = RateLimiter()
    assert [spent(limiter, who, 100.0) for who in (A, B, A)] == [2, 2, 0]


def test_full_buckets_are_dropped_as_new_principals_come() -> None:
    """Promise: a name that comes once takes room for a period; millions of them over time take no more than that."""
    limiter = RateLimiter()
    for number in range(20_000):
        assert limiter.spend(EVERYBODY, f"agent://acme/run-{number}", "log", at=number * 0.1)
    assert len(limiter) <= 1024 + 100


def test_what_is_not_full_is_kept_by_the_logs_own_time() -> None:
    """Promise (A24): times that a sender chooses within its freshness drop no bucket; only what the reader saw does."""
    limiter = RateLimiter()
    assert spent(limiter, A, 100.0, passed=90.0) == 2
    for number in range(3000):
        limiter.spend(EVERYBODY, f"agent://acme/run-{number}", "log", at=200.0, passed=95.0)
    assert len(limiter) == 3001
    assert spent(limiter, A, 100.0, passed=95.0) == 0
    limiter.spend(EVERYBODY, "agent://acme/last", "log", at=220.0, passed=210.0)
    for number in range(5000):
        limiter.spend(EVERYBODY, f"agent://acme/later-{number}", "log", at=220.0, passed=210.0)
    assert spent(limiter, A, 220.0, passed=210.0) == 2


def test_a_dropped_bucket_gives_no_second_burst_to_a_clock_that_steps_back() -> None:
    """Promise (A34): a bucket was full when it was dropped, and its next one is full then, not earlier."""
    limiter = RateLimiter()
    assert spent(limiter, A, 100.0) == 2
    for number in range(1024):
        limiter.spend(EVERYBODY, f"agent://acme/run-{number}", "log", at=115.0)
    assert spent(limiter, A, 101.0) == 2
    assert spent(limiter, A, 115.0) == 0


def test_beyond_all_room_newcomers_share_and_nobody_is_reset() -> None:
    """Promise (A24): principals without number leave those that have a bucket with theirs, spent as it is."""
    limiter = RateLimiter(most=2)
    assert [spent(limiter, who, 100.0) for who in (A, B)] == [2, 2]
    assert [spent(limiter, f"agent://acme/{n}", 100.0, times=1) for n in range(9)] == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert len(limiter) == 3
    assert [spent(limiter, who, 105.0) for who in (A, B)] == [1, 1]
    assert spent(limiter, "agent://acme/new", 130.0) == 2, "what is full makes room once a period"
    assert len(limiter) == 1


def test_room_is_looked_for_once_a_period_only() -> None:
    """Promise: at the bound a newcomer costs no look at all buckets, unless a period has passed since the last."""
    limiter = RateLimiter(most=2)
    assert [spent(limiter, who, 100.0, times=1) for who in (A, B)] == [1, 1]
    assert spent(limiter, "agent://acme/c", 104.0, times=1) == 1, "a first look, at which theirs had not filled up"
    assert spent(limiter, "agent://acme/d", 106.0, times=2) == 1, "theirs have, but nobody looks"
    assert spent(limiter, "agent://acme/d", 114.0, times=3) == 2
    assert len(limiter) == 1, "that of the last newcomer"


def test_a_log_that_is_forgotten_makes_room() -> None:
    """Promise: the buckets of a log that is no longer read are gone, and counted so; those of others stay."""
    limiter = RateLimiter()
    assert [spent(limiter, A, 100.0, log=log) for log in ("one", "two")] == [2, 2]
    limiter.forget("one")
    assert len(limiter) == 1
    assert [spent(limiter, A, 100.0, log=log) for log in ("one", "two")] == [2, 0]


def test_rules_that_are_gone_take_their_buckets_along() -> None:
    """Promise: a file that changes a thousand times leaves nothing behind, and an equal rule keeps what was spent."""
    limiter = RateLimiter()
    for number in range(1000):
        rule = Allow(A, ("nats://prod/a",), Rate(number + 1, 10.0))
        limiter.switch([rule, EVERYBODY])
        assert limiter.spend(rule, A, "log", at=100.0)
    assert spent(limiter, A, 100.0) == 2
    equal = Allow("agent://acme/**", ("nats://prod/a",), Rate(2, 10.0))
    limiter.switch([equal])
    assert len(limiter) == 1
    assert not limiter.spend(equal, A, "log", at=100.0)
    assert next(iter(limiter._tables))[0] is equal, "or each message compares the channels of both"


def test_issue_times_are_counted_in_stretches_of_the_period() -> None:
    """Promise: twice the tokens within one is what a bucket may let through; what is late counts for nothing."""
    rates, rule = IssueRates(), Allow(A, EVERYBODY.channels, Rate(3, 2.5))
    most = int(3 * (3 / 2.5 + 1))
    assert [rates.is_over(rule, A, "log", 9 + number % 3) for number in range(most + 1)] == [False] * most + [True]
    assert not rates.is_over(rule, A, "log", 8)
    assert rates.is_over(rule, A, "log", 11)
    assert not rates.is_over(rule, A, "another log", 11)
    assert not rates.is_over(rule, B, "log", 11)
    assert not rates.is_over(rule, A, "log", 12)
    assert not rates.is_over(Allow(A, EVERYBODY.channels), A, "log", 12)
    for _ in range(most - 1):
        assert not rates.is_over(rule, A, "another log", 11)
    rates.forget("log")
    assert [rates.is_over(rule, A, "log", 9 + number % 3) for number in range(most + 1)] == [False] * most + [True]
    assert rates.is_over(rule, A, "another log", 11)


def test_what_is_counted_of_issue_times_is_bounded() -> None:
    """Promise: who sends under many names makes nobody look worse."""
    rates, rule = IssueRates(most=2), Allow(A, EVERYBODY.channels, Rate(1, 1.0))
    for number in range(10):
        assert [rates.is_over(rule, f"agent://{number}", "log", 5) for _ in range(2)] == [False] * 2
    assert [rates.is_over(rule, f"agent://{number}", "log", 5) for number in (9, 8, 7)] == [True, True, False]
