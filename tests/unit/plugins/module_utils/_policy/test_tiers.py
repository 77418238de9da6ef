# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import (
    TIERS,
    faults,
    longest_gap,
    refuse,
    resolve,
)

DATA = Path(__file__).parent / "data"
DAY, HOUR = 86400.0, 3600.0
GAPS = {
    "critical": {"full": 7 * DAY, "diff": 2 * DAY, "incr": HOUR},
    "standard": {"full": DAY, "incr": HOUR},
    "low": {"full": DAY},
}


def of(tier: str = "standard", **fields: Any) -> dict[str, Any]:
    return resolve(tier, {}, fields)


@pytest.mark.parametrize("tier", TIERS)
def test_each_tier_can_be_kept(tier: str) -> None:
    assert faults(of(tier), GAPS[tier]) == []


def test_the_tiers_promise_what_they_are_named_for() -> None:
    seconds = {tier: of(tier)["seconds"] for tier in TIERS}
    assert seconds["critical"]["rpo"] <= 60
    assert seconds["critical"]["rto"] <= HOUR
    assert HOUR <= seconds["standard"]["rpo"] <= 4 * HOUR
    assert seconds["standard"]["rto"] <= 4 * HOUR
    assert seconds["low"]["rpo"] == seconds["low"]["rto"] == DAY


def test_a_host_overrides_single_fields_of_its_tier() -> None:
    policy = of("critical", retention={"full": 8}, schedule={"diff": None})
    assert policy["retention"] == {"full": 8, "full-type": "count", "diff": 14}
    assert sorted(policy["schedule"]) == ["full", "incr"]
    assert TIERS["critical"]["retention"]["full"] == 4


def test_tiers_of_the_users_own_are_laid_over_the_table() -> None:
    gold = {**TIERS["critical"], "rpo": "30s", "archive_timeout": 30}
    assert resolve("gold", {"gold": gold}, {})["seconds"]["rpo"] == 30
    assert resolve("low", {"low": {"window": "1d"}}, {})["window"] == "1d"


@pytest.mark.parametrize(
    ("tier", "tiers", "fields", "says"),
    [
        ("golden", {}, {}, "is no tier. There are critical, low, standard"),
        ("standard", {}, {"rpu": "1h"}, "no field rpu"),
        ("standard", {}, {"schedule": {"weekly": "Sun"}}, "no field schedule.weekly"),
        ("standard", {}, {"retention": {"fulls": 3}}, "no field retention.fulls"),
        ("gold", {"gold": {"rpo": "1m"}}, {}, "lacks archive_timeout, restore_test"),
    ],
)
def test_what_is_not_known_is_named(tier: str, tiers: dict[str, Any], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RecoveryError, match=says):
        resolve(tier, tiers, fields)


@pytest.mark.parametrize(
    ("fields", "gaps", "says"),
    [
        ({"retention": {"full": 2}}, {"full": DAY}, "reaches back 1 d at worst, and window is 7d: keep 8 full backups"),
        ({"retention": {"full": 3, "full-type": "time"}}, {"full": DAY}, "reaches back 3 d .* keep 7 days"),
        ({"retention": {"archive": 2}}, {"full": DAY}, r"retention.archive 2 \(of type full\) .* for 1 d .* keep 8"),
        ({"retention": {"archive": 9, "archive-type": "incr"}}, {"full": DAY, "incr": HOUR}, "for 8 h at worst"),
        ({"archive_timeout": 20000}, {"full": DAY}, "archive_timeout 20000 .* at most 14400"),
        ({"archive_timeout": 0}, {"full": DAY}, "lose up to any number of s"),
        ({"schedule": {"full": None}}, {"incr": HOUR}, "there is no schedule.full"),
        ({}, {"full": float("inf")}, "elapses once at most"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_what_would(
    fields: dict[str, Any], gaps: dict[str, float], says: str
) -> None:
    policy = of("standard", **fields)
    with pytest.raises(RecoveryError, match=says):
        raise refuse(policy, faults(policy, gaps), "db1")


@pytest.mark.parametrize("version", ["252", "257"])
def test_the_longest_gap_is_read_from_what_systemd_prints(version: str) -> None:
    assert longest_gap((DATA / f"calendar-{version}.txt").read_text()) == 2 * DAY


def test_a_time_that_never_comes_again() -> None:
    assert longest_gap((DATA / "calendar-never.txt").read_text()) == float("inf")
