# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
    ensure_absent,
    ensure_snapshot,
)
from botocore.exceptions import ClientError

TAKEN = datetime(2026, 11, 25, 3, 12, tzinfo=timezone.utc)
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1111"


def instance(status: str = "available", name: str = "shop", resource_id: str = "db-A") -> dict[str, Any]:
    return {
        "DBInstances": [
            {
                "DBInstanceIdentifier": name,
                "DbiResourceId": resource_id,
                "DBInstanceStatus": status,
                "Endpoint": {"Address": "shop.example.com", "Port": 5432},
            }
        ]
    }


def snapshot(status: str, resource_id: str = "db-A", percent: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "DBSnapshots": [
            {
                "DBSnapshotIdentifier": "before",
                "DBSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:snapshot:before",
                "DBInstanceIdentifier": "shop",
                "DbiResourceId": resource_id,
                "SnapshotType": "manual",
                "Status": status,
                "PercentProgress": percent,
                "AllocatedStorage": 100,
                "Encrypted": True,
                "KmsKeyId": KEY,
                "SnapshotCreateTime": TAKEN,
                "TagList": [{"Key": "reason", "Value": "release"}, {"Key": "aws:x", "Value": "y"}],
                **more,
            }
        ]
    }


def ensure(world: Any, here: Any, check_mode: bool = False, resource_id: Optional[str] = None) -> dict[str, Any]:
    snapshots = Snapshots(here.rds, world.waiting, OF_INSTANCE)
    return ensure_snapshot(snapshots, "shop", "before", resource_id, {"reason": "release"}, check_mode)


def absent(world: Any, here: Any, check_mode: bool = False) -> dict[str, Any]:
    return ensure_absent(Snapshots(here.rds, world.waiting, OF_INSTANCE), "shop", "before", None, check_mode)


def test_a_snapshot_is_taken_after_a_running_backup_and_is_complete_at_the_end(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance("backing-up"), DBInstanceIdentifier="shop")
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers(
        "describe_db_instances",
        instance("backing-up"),
        Filters=[{"Name": "dbi-resource-id", "Values": ["db-A"]}],
    )
    here.answers("describe_db_instances", instance("modifying"))
    here.answers("describe_db_instances", instance())
    here.answers(
        "create_db_snapshot",
        {},
        DBSnapshotIdentifier="before",
        DBInstanceIdentifier="shop",
        Tags=[{"Key": "reason", "Value": "release"}],
    )
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_snapshots", snapshot("creating", percent=40))
    here.answers("describe_db_snapshots", snapshot("available", percent=100))
    result = ensure(world, here)
    assert result["changed"]
    assert result["seconds"] == world.clock.now > 0
    assert result["diff"] == {"before": {"status": "absent"}, "after": {"status": "available"}}
    assert result["snapshot"] == {
        "identifier": "before",
        "arn": "arn:aws:rds:eu-central-1:123456789012:snapshot:before",
        "status": "available",
        "type": "manual",
        "source": "shop",
        "resource_id": "db-A",
        "copied_from": None,
        "engine": None,
        "engine_version": None,
        "size_gb": 100,
        "encrypted": True,
        "kms_key_id": KEY,
        "time": "2026-11-25T03:12:00+00:00",
        "original_time": "2026-11-25T03:12:00+00:00",
        "tags": {"reason": "release"},
    }


def test_a_backup_that_begins_between_the_look_and_the_call_is_waited_for(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.refuses("create_db_snapshot", "InvalidDBInstanceState", "Instance shop is not in available state.")
    here.answers("create_db_snapshot", {})
    here.answers("describe_db_snapshots", snapshot("available"))
    assert ensure(world, here)["changed"]


def test_a_database_that_stays_busy_ends_in_an_error_that_says_what_aws_said(world: Any, here: Any) -> None:
    world.waiting.timeout = 3.0
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    for _again in range(3):
        here.refuses("create_db_snapshot", "InvalidDBInstanceState", "Instance shop is not in available state.")
    with pytest.raises(RecoveryError, match=r"not in available state.*The database itself is untouched") as error:
        ensure(world, here)
    assert "AWS goes on" not in error.value.msg


def test_a_snapshot_that_is_there_changes_nothing(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", snapshot("available"))
    result = ensure(world, here)
    assert not result["changed"]
    assert result["snapshot"]["status"] == "available"


def test_a_run_that_was_killed_waits_for_its_own_snapshot(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", snapshot("creating"))
    here.answers("describe_db_snapshots", snapshot("creating", percent=70))
    here.answers("describe_db_snapshots", snapshot("available"))
    assert not ensure(world, here)["changed"]


def test_after_a_swap_the_evidence_is_still_that_of_the_old_database(world: Any, here: Any) -> None:
    filters = [{"Name": "dbi-resource-id", "Values": ["db-A"]}]
    here.answers("describe_db_instances", instance(name="shop-kept"), Filters=filters)
    here.answers("describe_db_snapshots", snapshot("available"))
    assert not ensure(world, here, resource_id="db-A")["changed"]


def test_a_failed_snapshot_is_deleted_and_taken_anew(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", snapshot("failed"))
    here.answers("delete_db_snapshot", {}, DBSnapshotIdentifier="before")
    here.answers("describe_db_snapshots", snapshot("deleting"))
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.answers("create_db_snapshot", {})
    here.answers("describe_db_snapshots", snapshot("available"))
    result = ensure(world, here)
    assert result["changed"]
    assert result["replaced_failed"]
    assert result["diff"]["before"] == {"status": "failed"}


def test_a_snapshot_that_fails_while_it_is_taken_is_an_error(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.answers("create_db_snapshot", {})
    here.answers("describe_db_snapshots", snapshot("creating"))
    here.answers("describe_db_snapshots", snapshot("failed"))
    with pytest.raises(RecoveryError, match=r"has failed.*Run the same again: the failed one is deleted"):
        ensure(world, here)


def test_a_name_that_is_being_deleted_is_free_when_it_is_gone(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", snapshot("deleting"))
    here.answers("describe_db_snapshots", snapshot("deleting"))
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.answers("create_db_snapshot", {})
    here.answers("describe_db_snapshots", snapshot("available"))
    assert ensure(world, here)["changed"]


@pytest.mark.parametrize("other", [snapshot("available", "db-B"), snapshot("failed", "db-B")])
def test_a_snapshot_of_another_database_is_never_touched(world: Any, here: Any, other: dict[str, Any]) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", other)
    with pytest.raises(RecoveryError, match=r"name before is taken in eu-central-1 .*db-B.*Give another name"):
        ensure(world, here)


def test_one_that_somebody_else_took_in_between_is_not_mistaken_for_ours(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.refuses("create_db_snapshot", "DBSnapshotAlreadyExists")
    here.answers("describe_db_snapshots", snapshot("creating", "db-B"))
    with pytest.raises(RecoveryError, match="is taken"):
        ensure(world, here)


def test_an_answer_that_got_lost_is_found_again(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.refuses("create_db_snapshot", "DBSnapshotAlreadyExists")
    here.answers("describe_db_snapshots", snapshot("creating"))
    here.answers("describe_db_snapshots", snapshot("available"))
    assert ensure(world, here)["changed"]


def test_a_full_quota_says_what_to_remove(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.refuses("create_db_snapshot", "SnapshotQuotaExceeded", "Cannot create more than 100 manual snapshots")
    with pytest.raises(RecoveryError, match=r"more than 100 manual snapshots.*untouched.*rds_snapshot_prune"):
        ensure(world, here)


def test_what_aws_denies_is_said_by_aws(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance())
    here.refuses("create_db_snapshot", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        ensure(world, here)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_database_that_is_missing_is_an_error_in_check_mode_too(world: Any, here: Any, check_mode: bool) -> None:
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    with pytest.raises(RecoveryError, match=r"no DB instance shop in eu-central-1"):
        ensure(world, here, check_mode)


def test_a_database_that_is_full_is_said_before_anything_is_taken(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance("storage-full"))
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    here.answers("describe_db_instances", instance("storage-full"))
    with pytest.raises(RecoveryError, match="disk is full"):
        ensure(world, here)


@pytest.mark.parametrize("status", ["failed", "absent"])
def test_check_mode_says_that_one_would_be_taken_and_takes_none(world: Any, here: Any, status: str) -> None:
    here.answers("describe_db_instances", instance("backing-up"))
    here.answers("describe_db_snapshots", snapshot("failed") if status == "failed" else {"DBSnapshots": []})
    result = ensure(world, here, check_mode=True)
    assert result["changed"]
    assert result["snapshot"] is None


def test_a_name_of_an_automated_snapshot_is_refused_before_any_call(world: Any, here: Any) -> None:
    with pytest.raises(RecoveryError, match="no identifier of RDS: at most 255"):
        ensure_snapshot(Snapshots(here.rds, world.waiting, OF_INSTANCE), "shop", "rds:shop-1", None, {}, False)


def test_a_cluster_is_called_by_its_own_names(world: Any, here: Any) -> None:
    cluster = {
        "DBClusters": [
            {"DBClusterIdentifier": "shop", "DbClusterResourceId": "cluster-A", "Status": "available", "Endpoint": "x"}
        ]
    }
    taken = {
        "DBClusterSnapshotIdentifier": "before",
        "DBClusterSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:cluster-snapshot:before",
        "DbClusterResourceId": "cluster-A",
        "DBClusterIdentifier": "shop",
        "StorageEncrypted": True,
        "Status": "available",
    }
    here.answers("describe_db_clusters", cluster, DBClusterIdentifier="shop")
    here.refuses("describe_db_cluster_snapshots", "DBClusterSnapshotNotFoundFault")
    here.answers("describe_db_clusters", cluster)
    here.refuses("create_db_cluster_snapshot", "InvalidDBClusterStateFault")
    here.answers("create_db_cluster_snapshot", {}, DBClusterSnapshotIdentifier="before", DBClusterIdentifier="shop")
    here.answers("describe_db_cluster_snapshots", {"DBClusterSnapshots": [taken]})
    result = ensure_snapshot(Snapshots(here.rds, world.waiting, OF_CLUSTER), "shop", "before", None, {}, False)
    assert result["snapshot"]["resource_id"] == "cluster-A"
    assert result["snapshot"]["encrypted"]


def test_deleting_waits_until_the_name_is_free(world: Any, here: Any) -> None:
    here.answers("describe_db_snapshots", snapshot("creating"))
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_snapshots", snapshot("creating"))
    here.answers("describe_db_snapshots", snapshot("available"))
    here.refuses("delete_db_snapshot", "InvalidDBSnapshotState")
    here.answers("delete_db_snapshot", {})
    here.answers("describe_db_snapshots", snapshot("deleting"))
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    result = absent(world, here)
    assert result["changed"]
    assert result["snapshot"]["identifier"] == "before"


def test_deleting_what_is_gone_changes_nothing(world: Any, here: Any) -> None:
    here.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    assert absent(world, here) == {
        "changed": False,
        "snapshot": None,
        "diff": {"before": {"status": "absent"}, "after": {"status": "absent"}},
    }


def test_check_mode_deletes_nothing(world: Any, here: Any) -> None:
    here.answers("describe_db_snapshots", snapshot("available"))
    here.answers("describe_db_instances", instance())
    assert absent(world, here, check_mode=True)["changed"]


def test_the_snapshot_of_another_database_is_not_deleted(world: Any, here: Any) -> None:
    here.answers("describe_db_snapshots", snapshot("available", "db-B", DBInstanceIdentifier="accounts"))
    here.answers("describe_db_instances", instance())
    with pytest.raises(RecoveryError, match="untouched"):
        absent(world, here)
