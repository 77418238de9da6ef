"""Moments as users write them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import (
    microseconds_of,
    parse_time,
    seconds_lost,
)

MOMENT = datetime(2026, 11, 23, 21, 15, 4, 500000, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23 21:15:04.5+00:00",
        "2026-11-23T21:15:04.500000Z",
        "2026-11-23t21:15:04,5z",
        " 2026-11-23 22:15:04.5 +01 ",
        "2026-11-23 16:45:04.5-0430",
        "2026-11-24 11:15:04.5+14:00",
    ],
)
def test_a_moment_has_many_spellings(text: str) -> None:
    assert parse_time(text, "since") == MOMENT
    assert microseconds_of(parse_time(text, "since")) == 1795468504500000


def test_seconds_may_be_left_out() -> None:
    assert parse_time("2026-11-23 21:15Z", "since") == MOMENT.replace(second=0, microsecond=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-23 21:15:04", "has no UTC offset"),
        ("2026-11-23 21:15:04 Europe/Berlin", "is no time"),
        ("2026-11-23 21:15:04 UTC", "is no time"),
        ("2026-11-23", "is no time"),
        ("yesterday", "is no time"),
        ("", "is no time"),
        ("2026-13-23 21:15:04Z", "is no time"),
        ("2026-11-23 21:15:60Z", "is no time"),
        ("0001-01-01 00:00:00+14", "is no time"),
        ("2026-11-23 21:15:04.1234567Z", "is no time"),
    ],
)
def test_what_could_be_another_moment_elsewhere_is_refused(text: str, said: str) -> None:
    with pytest.raises(RecoveryError, match=said) as caught:
        parse_time(text, "dr_since")
    assert "dr_since" in caught.value.msg
    assert "Nothing was changed" in caught.value.msg
    assert "2026-01-31 14:05:00+00:00" in caught.value.msg


@pytest.mark.parametrize(
    ("reached", "until", "seconds"),
    [
        ("2026-11-25T03:12:00+00:00", "2026-11-25T03:13:30+00:00", 90.0),
        ("2026-11-25T05:12:00+02:00", "2026-11-25T03:13:30.25Z", 90.25),
        ("2026-11-25T03:12:00+00:00", "2026-11-25T03:11:00+00:00", 0.0),
        ("", "2026-11-25T03:13:30+00:00", None),
    ],
)
def test_what_is_lost_is_counted_from_the_last_moment_that_was_reached(
    reached: str, until: str, seconds: Optional[float]
) -> None:
    assert seconds_lost(reached, until) == seconds
