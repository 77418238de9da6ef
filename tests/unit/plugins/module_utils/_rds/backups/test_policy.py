# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import TIERS
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.policy import (
    backup_window,
    longest_distance,
    rds_policy,
    time_of_day,
)

DAY = 86400


@pytest.mark.parametrize(
    ("tier", "days", "every", "copies"), [("critical", 21, 7 * DAY, 4), ("standard", 7, DAY, 8), ("low", 3, DAY, 4)]
)
def test_a_tier_means_the_same_on_rds_as_on_servers(tier: str, days: int, every: int, copies: int) -> None:
    policy = rds_policy(tier, {}, {})
    assert policy["backup_retention_period"] == days
    assert policy["preferred_backup_window"] == "01:00-01:30"
    assert policy["copy_every"] == every
    assert policy["copy_count"] == copies == TIERS[tier]["retention"]["full"]


@pytest.mark.parametrize(
    ("window", "days"), [("1h", 1), ("24h", 1), ("25h", 2), ("7d", 7), ("35d", 35), ("5w", 35), ("0", 1)]
)
def test_retention_is_the_window_in_days_rounded_up(window: str, days: int) -> None:
    assert rds_policy("low", {}, {"window": window})["backup_retention_period"] == days


def test_more_than_rds_can_keep_is_refused_and_copies_are_named() -> None:
    with pytest.raises(RecoveryError, match=r"window 60d .* 35 days at most.*rds_backup_copies, with max_age 60d"):
        rds_policy("low", {}, {"window": "60d"})


def test_an_rpo_that_rds_cannot_keep_is_told_and_not_refused() -> None:
    critical, low = rds_policy("critical", {}, {}), rds_policy("low", {}, {})
    assert (critical["rpo"], critical["rpo_achievable"]) == (60, 300)
    assert "about 5 minutes" in critical["notes"][0]
    assert low["notes"] == []


def test_own_tiers_and_fields_count() -> None:
    policy = rds_policy("gold", {"gold": {**TIERS["low"], "window": "14d"}}, {"schedule": {"full": "*-*-* 23:45"}})
    assert (policy["backup_retention_period"], policy["preferred_backup_window"]) == (14, "23:45-00:15")


@pytest.mark.parametrize(("tier", "says"), [("golden", "is no tier"), ("low", "has no schedule.full")])
def test_what_cannot_be_derived_is_refused(tier: str, says: str) -> None:
    with pytest.raises(RecoveryError, match=says):
        rds_policy(tier, {}, {"schedule": {"full": None}} if tier == "low" else {})


@pytest.mark.parametrize(
    ("calendar", "time"),
    [
        ("*-*-* 01:00", (1, 0)),
        ("Sun *-*-* 01:00:00", (1, 0)),
        ("Mon..Fri 2:30", (2, 30)),
        ("*-*-01 04:00 UTC", (4, 0)),
        ("daily", (0, 0)),
        ("Weekly", (0, 0)),
        ("*-*-*", (0, 0)),
        ("*-*-* *:30", None),
        ("*-*-* 01,13:00", None),
        ("*-*-* 00/6:00", None),
        ("*-*-* 01:00 Europe/Berlin", None),
        ("hourly", None),
        ("", None),
    ],
)
def test_the_time_of_the_day_is_read_where_there_is_one(calendar: str, time: Optional[tuple[int, int]]) -> None:
    assert time_of_day(calendar) == time


def test_a_schedule_without_one_time_leaves_the_window_as_it_is_and_says_so() -> None:
    policy = rds_policy("low", {}, {"schedule": {"full": "*-*-* 00/6:00"}})
    assert policy["preferred_backup_window"] is None
    assert "backup window stays as it is" in policy["notes"][0]


@pytest.mark.parametrize(
    ("calendar", "days"),
    [
        ("*-*-* 01:00", 1),
        ("Sun *-*-* 01:00", 7),
        ("Sunday 01:00", 7),
        ("weekly", 7),
        ("Mon..Fri *-*-* 01:00", 3),
        ("Mon,Wed,Fri 01:00", 3),
        ("Sat..Mon 01:00", 5),
        ("Mon..Sun 01:00", 1),
        ("*-*-* *:30", 1),
        ("*-*-01 01:00", 1),
    ],
)
def test_copies_are_as_far_apart_as_full_backups(calendar: str, days: int) -> None:
    assert longest_distance(calendar) == days * DAY


@pytest.mark.parametrize(("calendar", "window"), [("*-*-* 9:05", "09:05-09:35"), ("hourly", None)])
def test_a_backup_window_takes_half_an_hour(calendar: str, window: Any) -> None:
    assert backup_window(calendar) == window
