"""Which standbys a recovery waits for, from rows as pg_stat_replication has them, one look a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._tables.lag import Lag

MB = 1 << 20
START = 1000 * MB


def watched(lag: Lag, seconds: int, replayed: Callable[[int], Any], written: Any = None) -> list[int]:
    """In which seconds the standby is waited for, while production writes a megabyte a second."""
    late = []
    for second in range(seconds):
        position = START + second * MB
        received = position if written is None else written(second)
        row = {
            "pid": 7,
            "name": "standby1",
            "address": "10.0.0.2",
            "written": received,
            "replayed": replayed(second),
        }
        if lag.look(100.0 + second, position, [row]):
            late.append(second)
    return late


def test_a_standby_that_follows_is_not_waited_for() -> None:
    lag = Lag(5)
    assert watched(lag, 100, lambda second: START + (second - 1.5) * MB) == []
    assert lag.standbys() == [{"name": "standby1 at 10.0.0.2", "most_lag_seconds": 1.0, "not_waited_for": None}]


def test_replay_that_stops_is_waited_for_until_it_goes_on() -> None:
    assert watched(Lag(5), 30, lambda second: START if second < 20 else START + second * MB) == list(range(7, 20))


def test_a_standby_that_replays_with_a_delay_stops_nothing_for_ever() -> None:
    lag = Lag(5, patience=10)
    assert watched(lag, 600, lambda second: START) == list(range(7, 18))
    assert lag.standbys()[0]["not_waited_for"] == "its replay did not move (delayed or paused)"


def test_a_standby_that_was_far_behind_before_us_is_not_waited_for() -> None:
    lag = Lag(5)
    assert watched(lag, 100, lambda second: START - 500 * MB + second * MB) == []
    assert lag.standbys()[0]["not_waited_for"] == "its replay was behind when loading began (delayed, paused or slow)"


def test_what_a_delayed_standby_does_not_receive_is_waited_for() -> None:
    lag = Lag(5)

    def written(second: int) -> int:
        return START if second < 10 else START + 20 * MB

    assert watched(lag, 20, lambda second: START - 500 * MB, written) == [7, 8, 9]


def test_who_replays_nothing_and_a_limit_of_zero_are_not_waited_for() -> None:
    assert watched(Lag(5), 50, lambda second: None) == []
    assert watched(Lag(0), 50, lambda second: START) == []
