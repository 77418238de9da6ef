# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.prune import (
    Rule,
    ensure_pruned,
    prune,
    source_resource_id,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
)

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=timezone.utc)
DAY = 86400
TAGS = {"purpose": "scheduled"}


def facts(name: str, days: int, **more: Any) -> dict[str, Any]:
    return {
        "identifier": name,
        "type": "manual",
        "status": "available",
        "resource_id": "db-A",
        "time": (NOW - timedelta(days=days)).isoformat(),
        "age": days * DAY,
        "tags": {**TAGS, "team": "shop"},
        **more,
    }


def rule(keep_count: Optional[int] = None, max_age: Optional[int] = None) -> Rule:
    return Rule("db-A", TAGS, keep_count, max_age)


def deleted(snapshots: list[dict[str, Any]], limits: Rule) -> list[str]:
    return [verdict.snapshot["identifier"] for verdict in prune(snapshots, limits) if verdict.delete]


def test_what_is_beyond_the_count_goes() -> None:
    assert deleted([facts(f"s{days}", days) for days in (3, 1, 2)], rule(keep_count=2)) == ["s3"]


def test_what_is_older_than_the_age_goes() -> None:
    assert deleted([facts(f"s{days}", days) for days in (1, 2, 3)], rule(max_age=2 * DAY)) == ["s3"]


def test_with_both_limits_what_is_beyond_either_goes() -> None:
    seen = [facts(f"s{days}", days) for days in (1, 2, 3, 9)]
    assert deleted(seen, rule(keep_count=3, max_age=5 * DAY)) == ["s9"]
    assert deleted(seen, rule(keep_count=2, max_age=5 * DAY)) == ["s3", "s9"]
    assert deleted(seen, rule(keep_count=9, max_age=5 * DAY)) == ["s9"]


def test_the_last_good_one_stays_however_old_it_is() -> None:
    seen = [facts("old", 400), facts("bad", 1, status="failed"), facts("half", 0, status="creating")]
    assert deleted(seen, rule(keep_count=1, max_age=DAY)) == ["bad"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": "automated"}, "automated, not manual"),
        ({"type": "awsbackup"}, "awsbackup, not manual"),
        ({"resource_id": "db-B"}, "of another database"),
        ({"resource_id": None}, "of another database"),
        ({"status": "creating"}, "it is creating"),
        ({"status": "copying"}, "it is copying"),
        ({"tags": {}}, "no tag purpose=scheduled"),
        ({"tags": {"purpose": "release"}}, "no tag purpose=scheduled"),
        ({"tags": {}, "status": "failed"}, "no tag purpose=scheduled"),
        ({"time": None, "age": None}, "does not say how old"),
    ],
)
def test_what_is_not_meant_stays_and_says_why(more: dict[str, Any], reason: str) -> None:
    (verdict,) = [
        verdict
        for verdict in prune([facts("new", 1), facts("other", 99, **more)], rule(keep_count=1, max_age=1))
        if verdict.snapshot["identifier"] == "other"
    ]
    assert not verdict.delete
    assert reason in verdict.reason


def arbitrary(seed: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        facts(
            f"s{number}",
            dice.randrange(60),
            type=dice.choice(["manual", "manual", "manual", "automated", "awsbackup"]),
            status=dice.choice(["available", "available", "failed", "creating", "deleting"]),
            resource_id=dice.choice(["db-A", "db-A", "db-B", None]),
            tags=dice.choice([TAGS, TAGS, {}, {"purpose": "release"}, {**TAGS, "more": "x"}]),
        )
        for number in range(dice.randrange(12))
    ]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_there_is_nothing_goes_that_must_stay(seed: int) -> None:
    snapshots = arbitrary(seed)
    limits = rule(keep_count=1 + seed % 4 if seed % 3 else None, max_age=(seed % 50) * DAY if seed % 2 else None)
    verdicts = prune(snapshots, limits)
    assert sorted(verdict.snapshot["identifier"] for verdict in verdicts) == sorted(
        snapshot["identifier"] for snapshot in snapshots
    )
    going = [verdict.snapshot for verdict in verdicts if verdict.delete]
    for snapshot in going:
        assert snapshot["type"] == "manual"
        assert snapshot["resource_id"] == "db-A"
        assert snapshot["status"] in ("available", "failed")
        assert TAGS.items() <= snapshot["tags"].items()
    ours = [snapshot for snapshot in snapshots if snapshot["resource_id"] == "db-A" and snapshot["type"] == "manual"]
    good = [snapshot for snapshot in ours if snapshot["status"] == "available"]
    left = [snapshot for snapshot in good if snapshot not in going]
    assert bool(left) == bool(good)
    # What stays is not older than what goes, among those that the rule is about.
    tagged = [snapshot for snapshot in good if TAGS.items() <= snapshot["tags"].items()]
    stay = [snapshot["age"] for snapshot in tagged if snapshot not in going]
    gone = [snapshot["age"] for snapshot in tagged if snapshot in going]
    assert not gone or max(stay) <= min(gone)
    # A second run has nothing left to do.
    assert not [verdict for verdict in prune([s for s in snapshots if s not in going], limits) if verdict.delete]


# --- with AWS -------------------------------------------------------------------------------------------------------


def answer(*names_days: tuple[str, int], cluster: bool = False, **more: Any) -> dict[str, Any]:
    word, resource = ("DBClusterSnapshot", "DbClusterResourceId") if cluster else ("DBSnapshot", "DbiResourceId")
    found = [
        {
            f"{word}Identifier": name,
            resource: "db-A",
            "SnapshotType": "manual",
            "Status": "available",
            "SnapshotCreateTime": NOW - timedelta(days=days),
            "TagList": [{"Key": "purpose", "Value": "scheduled"}],
            **more,
        }
        for name, days in names_days
    ]
    return {f"{word}s": found}


def pruned(world: Any, here: Any, check_mode: bool = False, kind: Any = OF_INSTANCE) -> dict[str, Any]:
    return ensure_pruned(Snapshots(here.rds, world.waiting, kind), rule(keep_count=1), lambda: NOW, check_mode)


@pytest.fixture
def listing() -> dict[str, str]:
    return {"SnapshotType": "manual", "DbiResourceId": "db-A"}


def test_the_oldest_goes_first_and_is_looked_for_until_it_is_gone(world: Any, here: Any, listing: Any) -> None:
    here.answers("describe_db_snapshots", answer(("new", 1), ("old", 3), ("older", 5)), **listing)
    here.answers("delete_db_snapshot", {}, DBSnapshotIdentifier="older")
    here.answers("describe_db_snapshots", answer(("older", 5)), DBSnapshotIdentifier="older")
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_snapshots", answer(("new", 1), ("old", 3)), **listing)
    here.answers("delete_db_snapshot", {}, DBSnapshotIdentifier="old")
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_snapshots", answer(("new", 1)), **listing)
    result = pruned(world, here)
    assert result["changed"]
    assert [snapshot["identifier"] for snapshot in result["deleted"]] == ["older", "old"]
    assert result["deleted"][0]["reason"] == "there are 1 newer good ones"
    assert [(snapshot["identifier"], snapshot["reason"]) for snapshot in result["kept"]] == [
        ("new", "it is the newest good one")
    ]
    assert result["diff"] == {"before": {"snapshots": ["new", "old", "older"]}, "after": {"snapshots": ["new"]}}


def test_one_that_somebody_else_deletes_meanwhile_leaves_the_last_good_one(world: Any, here: Any, listing: Any) -> None:
    here.answers("describe_db_snapshots", answer(("new", 1), ("old", 3), ("older", 5)), **listing)
    here.answers("delete_db_snapshot", {}, DBSnapshotIdentifier="older")
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    # "new" is gone too: "old" is the last good one now.
    here.answers("describe_db_snapshots", answer(("old", 3)), **listing)
    assert [snapshot["identifier"] for snapshot in pruned(world, here)["kept"]] == ["old"]


def test_check_mode_lists_and_deletes_nothing(world: Any, here: Any, listing: Any) -> None:
    here.answers("describe_db_snapshots", answer(("new", 1), ("old", 3)), **listing)
    result = pruned(world, here, check_mode=True)
    assert result["changed"]
    assert [snapshot["identifier"] for snapshot in result["deleted"]] == ["old"]


def test_a_copy_is_as_old_as_what_it_was_copied_from(world: Any, here: Any, listing: Any) -> None:
    copies = answer(("copied-late", 1))
    copies["DBSnapshots"][0]["OriginalSnapshotCreateTime"] = NOW - timedelta(days=9)
    copies["DBSnapshots"] += answer(("copied-early", 2))["DBSnapshots"]
    here.answers("describe_db_snapshots", copies, **listing)
    result = pruned(world, here, check_mode=True)
    assert [snapshot["identifier"] for snapshot in result["deleted"]] == ["copied-late"]


def test_snapshots_of_clusters_are_pruned_too(world: Any, here: Any) -> None:
    here.answers(
        "describe_db_cluster_snapshots",
        answer(("new", 1), ("old", 3), cluster=True),
        SnapshotType="manual",
        DbClusterResourceId="db-A",
    )
    result = pruned(world, here, check_mode=True, kind=OF_CLUSTER)
    assert [snapshot["identifier"] for snapshot in result["deleted"]] == ["old"]


def test_the_source_is_found_by_its_name_and_meant_by_its_id(here: Any, world: Any) -> None:
    here.answers(
        "describe_db_instances",
        {"DBInstances": [{"DBInstanceIdentifier": "shop", "DbiResourceId": "db-A"}]},
        DBInstanceIdentifier="shop",
    )
    assert source_resource_id(here.rds, OF_INSTANCE, "shop", None) == "db-A"
    assert source_resource_id(here.rds, OF_INSTANCE, "shop", "db-B") == "db-B"


def test_a_source_that_is_not_there_is_not_guessed_by_name(here: Any, world: Any) -> None:
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    with pytest.raises(RecoveryError, match=r"no DB instance shop in eu-central-1 .* Give source_resource_id"):
        source_resource_id(here.rds, OF_INSTANCE, "shop", None)
