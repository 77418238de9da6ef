# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.policy import rds_policy
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.schedule import plan_copies

HOME, AWAY = "eu-central-1", "eu-west-1"
HOUR = 3600
MARK = {"purpose": "scheduled"}
KEY = f"arn:aws:kms:{AWAY}:123456789012:key/1"
DAILY = rds_policy("standard", {}, {})


def snapshot(region: str, hours: Optional[float], name: str = "made", **more: Any) -> dict[str, Any]:
    return {
        "region": region,
        "identifier": name,
        "type": "manual",
        "status": "available",
        "resource_id": "db-A",
        "age": None if hours is None else int(hours * HOUR),
        "tags": {**MARK, "team": "shop"},
        **more,
    }


def plan(*snapshots: dict[str, Any], copies: Any = ({"region": AWAY},), **more: Any) -> dict[str, Any]:
    found = {
        "region": HOME,
        "resource_id": "db-A",
        "settings": {"StorageEncrypted": False},
        "regions": {HOME: {"reachable": True, "error": None}, AWAY: {"reachable": True, "error": None}},
        "snapshots": list(snapshots),
        **more,
    }
    return plan_copies(found, copies, DAILY, "shop", MARK, datetime(2026, 11, 25, 3, 12, tzinfo=timezone.utc))


def test_the_first_copy_is_of_a_new_snapshot() -> None:
    assert plan() == {
        "snapshot": "shop-dbre-20261125t031200z",
        "copies": [{"region": AWAY, "kms_key_id": None}],
        "limits": [{"region": AWAY, "keep_count": 8, "max_age": None}],
        "left_out": [],
    }


def test_a_second_run_has_nothing_to_do() -> None:
    assert plan(snapshot(HOME, 0.1), snapshot(AWAY, 0.1))["copies"] == []


def test_a_run_every_day_makes_a_copy_every_day() -> None:
    # A snapshot is always a little younger than the day that has passed since the run began.
    assert plan(snapshot(HOME, 23.9), snapshot(AWAY, 23.9))["copies"] != []
    assert plan(snapshot(HOME, 12), snapshot(AWAY, 12))["copies"] == []


@pytest.mark.parametrize("status", ["available", "creating"])
def test_a_run_that_was_killed_goes_on_with_its_snapshot(status: str) -> None:
    seen = plan(snapshot(HOME, 0.5, "begun", status=status), snapshot(AWAY, 0.5, "begun", status="creating"))
    assert (seen["snapshot"], len(seen["copies"])) == ("begun", 1)


def test_a_snapshot_that_has_no_time_yet_has_just_been_begun() -> None:
    seen = plan(snapshot(HOME, 2, "older"), snapshot(HOME, None, "begun", status="creating"))
    assert seen["snapshot"] == "begun"


@pytest.mark.parametrize(
    "more",
    [
        {"status": "failed"},
        {"status": "deleting"},
        {"tags": {"purpose": "release"}},
        {"resource_id": "db-B"},
        {"type": "automated"},
    ],
)
def test_what_is_not_a_good_copy_of_this_database_does_not_count(more: dict[str, Any]) -> None:
    seen = plan(snapshot(HOME, 1, "there", **more), snapshot(AWAY, 1, "there", **more))
    assert len(seen["copies"]) == 1
    assert seen["snapshot"] != "there"


def test_a_region_that_was_added_gets_the_snapshot_that_is_there() -> None:
    regions = {name: {"reachable": True, "error": None} for name in (HOME, AWAY, "eu-north-1")}
    copies = [{"region": AWAY}, {"region": "eu-north-1", "max_age": "90d"}]
    seen = plan(snapshot(HOME, 2), snapshot(AWAY, 2), copies=copies, regions=regions)
    assert seen["snapshot"] == "made"
    assert [copy["region"] for copy in seen["copies"]] == ["eu-north-1"]
    assert seen["limits"][1] == {"region": "eu-north-1", "keep_count": None, "max_age": "90d"}


def test_the_region_of_the_database_itself_is_left_out() -> None:
    seen = plan(copies=[{"region": HOME}])
    assert (seen["copies"], seen["left_out"]) == ([], [HOME])


@pytest.mark.parametrize(
    ("copies", "more", "says"),
    [
        ([{"region": AWAY}], {"settings": {"StorageEncrypted": True}}, f"Give kms_key_id, a key of {AWAY}"),
        ([{"region": AWAY, "kms_key_id": KEY.replace(AWAY, HOME)}], {}, f"is a key of {HOME}"),
        ([{"region": AWAY}, {"region": AWAY}], {}, "twice"),
        ([{"region": AWAY, "max_age": "long"}], {}, "is not an age"),
        (
            [{"region": AWAY}],
            {"regions": {AWAY: {"reachable": False, "error": "timed out"}}},
            r"cannot be looked into.*timed out.*Nothing was copied",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused_first(copies: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(RecoveryError, match=says):
        plan(copies=copies, **more)


def test_a_key_of_the_other_region_is_handed_on() -> None:
    seen = plan(copies=[{"region": AWAY, "kms_key_id": KEY}], settings={"StorageEncrypted": True})
    assert seen["copies"] == [{"region": AWAY, "kms_key_id": KEY}]
