# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.filter.rds_bisect import rds_bisect
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.bisect import plan_bisect, restores_left

AFTER, BEFORE = "2026-11-25T02:00:00+00:00", "2026-11-25T12:00:00+00:00"
START = datetime(2026, 11, 25, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize("precision", [1, 10, 60, 3600])
@pytest.mark.parametrize("incident", [0.4, 1.0, 17.9, 5000.001, 20000, 35999.5])
def test_the_search_ends_before_the_incident_within_the_restores_it_said(incident: float, precision: float) -> None:
    happened = START + timedelta(seconds=incident)
    tried: list[dict[str, Any]] = []
    promised = rds_bisect([], AFTER, BEFORE, precision)["restores"]
    while True:
        step = rds_bisect(tried, AFTER, BEFORE, precision)
        if step["done"]:
            break
        assert step["restores"] <= promised - len(tried)
        moment = datetime.fromisoformat(step["next"])
        assert moment.microsecond == 0
        # A restore to a second has what committed at it.
        tried.append({"time": step["next"], "present": moment < happened, "rows": 5})
    assert len(tried) <= promised
    target = datetime.fromisoformat(step["target"]["value"])
    assert target < happened
    assert step["seconds"] == step["precision_seconds"] <= max(precision, 1)
    assert (happened - target).total_seconds() <= step["precision_seconds"]
    assert step["method"] == "bisect"
    assert step["seen"] is any(one["present"] for one in tried)


def test_the_first_answer_is_the_cost() -> None:
    step = rds_bisect([], AFTER, BEFORE, precision=60, minutes_each=20)
    assert (step["next"], step["restores"], step["instance_hours"]) == ("2026-11-25T07:00:00+00:00", 10, 3.3)
    assert "takes at most 10 restores one after the other: at 20 minutes each 3.3 hours" in step["text"]
    assert step["target"] is None


def test_the_same_looks_give_the_same_answer_in_any_order() -> None:
    tried = [
        {"time": "2026-11-25T07:00:00+00:00", "present": True, "rows": 10},
        {"time": "2026-11-25T11:30:00+02:00", "present": False},
    ]
    assert rds_bisect(tried, AFTER, BEFORE) == rds_bisect(tried[::-1], AFTER, BEFORE)
    step = rds_bisect(tried, AFTER, BEFORE)
    assert (step["after"], step["before"]) == ("2026-11-25T07:00:00+00:00", "2026-11-25T09:30:00+00:00")
    assert (step["seen"], step["rows"]) == (True, 10)


def test_looks_that_contradict_each_other_are_refused() -> None:
    tried = [
        {"time": "2026-11-25T07:00:00+00:00", "present": False},
        {"time": "2026-11-25T08:00:00+00:00", "present": True},
    ]
    with pytest.raises(AnsibleFilterError, match="gone at 2026-11-25T07.* and there at 2026-11-25T08.*made anew"):
        rds_bisect(tried, AFTER, BEFORE)


def test_an_incident_before_the_window_is_said() -> None:
    with pytest.raises(AnsibleFilterError, match="older than the window"):
        rds_bisect([{"time": AFTER, "present": False}], AFTER, BEFORE)


@pytest.mark.parametrize(
    ("after", "before", "match"),
    [
        (BEFORE, AFTER, "the window is empty"),
        ("2026-11-25T02:00:00", BEFORE, "no UTC offset"),
        ("yesterday", BEFORE, "is no time"),
    ],
)
def test_a_window_that_is_none_is_refused(after: str, before: str, match: str) -> None:
    with pytest.raises(AnsibleFilterError, match=match):
        rds_bisect([], after, before)


@pytest.mark.parametrize(
    "tried", ["x", [1], [{"time": AFTER}], [{"present": True}], [{"time": AFTER, "present": "yes"}]]
)
def test_what_is_no_list_of_looks_is_refused(tried: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="rds_bisect needs"):
        rds_bisect(tried, AFTER, BEFORE)


def test_a_window_that_ends_within_a_second_ends_with_it() -> None:
    step = rds_bisect([], AFTER, "2026-11-25T02:00:01.500000+00:00", precision=1)
    assert (step["next"], step["before"]) == ("2026-11-25T02:00:01+00:00", "2026-11-25T02:00:02+00:00")


def test_less_than_a_second_cannot_be_asked_for() -> None:
    assert restores_left(3600, 0) == restores_left(3600, 1) == 12
    assert restores_left(1, 0.001) == 0
    assert plan_bisect(START, START)["restores"] == 0
