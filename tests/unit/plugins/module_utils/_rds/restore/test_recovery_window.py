# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.recovery_window import recovery_window
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

NOW = datetime(2026, 11, 25, 3, 30, tzinfo=timezone.utc)
EARLIEST = datetime(2026, 11, 18, 4, 0, tzinfo=timezone.utc)
LATEST = datetime(2026, 11, 25, 3, 20, tzinfo=timezone.utc)
SHOP: dict[str, Any] = {
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "BackupRetentionPeriod": 7,
    "StorageEncrypted": True,
    "KmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/1",
    "LatestRestorableTime": LATEST,
}
BACKUP: dict[str, Any] = {
    "DBInstanceArn": "arn:aws:rds:eu-central-1:123456789012:db:shop",
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "DBInstanceAutomatedBackupsArn": "arn:aws:rds:eu-central-1:123456789012:auto-backup:ab-1",
    "Status": "active",
    "BackupRetentionPeriod": 7,
    "Encrypted": True,
    "KmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/1",
    "RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": LATEST - timedelta(minutes=5)},
}
SNAPSHOT: dict[str, Any] = {
    "DBSnapshotIdentifier": "shop-before",
    "DBSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before",
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "Engine": "postgres",
    "EngineVersion": "17.6",
    "Status": "available",
    "SnapshotType": "manual",
    "SnapshotCreateTime": NOW - timedelta(days=9),
    "FullSnapshotSizeInBytes": 4398046511,
    "AllocatedStorage": 20,
    "Encrypted": True,
    "KmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/1",
    "TagList": [{"Key": "why", "Value": "before release"}],
}


def region(aws: ScriptedAws, instance: Any = None, backups: Any = (), snapshots: Any = ()) -> ScriptedAws:
    aws.script("DescribeDBInstances", {"DBInstances": [instance]} if instance else "DBInstanceNotFound")
    aws.script("DescribeDBInstanceAutomatedBackups", {"DBInstanceAutomatedBackups": list(backups)})
    aws.script("DescribeDBSnapshots", {"DBSnapshots": list(snapshots)})
    return aws


def backups_of(here: set[str], backups: list[dict[str, Any]]) -> Callable[[dict[str, Any]], Any]:
    """Asked by a name, AWS tells backups of an instance that is there only (API reference); else all it has."""

    def answer(asked: dict[str, Any]) -> Any:
        name = asked.get("DBInstanceIdentifier")
        if name is not None and name not in here:
            return "DBInstanceNotFound"
        return {
            "DBInstanceAutomatedBackups": [item for item in backups if name in (None, item["DBInstanceIdentifier"])]
        }

    return answer


def look(home: ScriptedAws, *others: ScriptedAws, **more: Any) -> dict[str, Any]:
    at = datetime.fromisoformat(more["at"].replace("Z", "+00:00")) if more.get("at") else None
    kind, name = kind_of(more.get("instance", "shop"), more.get("cluster"))
    return recovery_window(kind, name, home.rds(), [other.rds() for other in others], NOW, at)


def test_window_and_snapshots_of_an_instance(aws: ScriptedAws) -> None:
    copy = {
        **SNAPSHOT,
        "DBSnapshotIdentifier": "shop-copy",
        "SourceDBSnapshotIdentifier": "arn:aws:rds:eu-west-1:123456789012:snapshot:shop-before",
        "SourceRegion": "eu-west-1",
        "SnapshotCreateTime": NOW - timedelta(days=1),
        "OriginalSnapshotCreateTime": NOW - timedelta(days=2),
        "Status": "creating",
    }
    result = look(region(aws, SHOP, [BACKUP], [SNAPSHOT, copy]))
    (window,) = result["windows"]
    assert (window["earliest"], window["latest"]) == ("2026-11-18T04:00:00+00:00", "2026-11-25T03:20:00+00:00")
    assert (window["kind"], window["retention_period"], window["encrypted"]) == ("automated", 7, True)
    assert window["arn"] == BACKUP["DBInstanceAutomatedBackupsArn"]
    newest, older = result["snapshots"]
    assert (newest["identifier"], newest["status"], newest["source_region"]) == ("shop-copy", "creating", "eu-west-1")
    assert (newest["time"], newest["age"]) == ("2026-11-23T03:30:00+00:00", 2 * 86400)
    assert (older["size"], older["allocated_storage"]) == (4398046511, 20)
    assert older["age"] == 9 * 86400
    assert (older["encrypted"], older["kms_key_id"]) == (True, SNAPSHOT["KmsKeyId"])
    assert (older["tags"], older["engine_version"]) == ({"why": "before release"}, "17.6")
    assert (result["exists"], result["resource_id"], result["changed"]) == (True, "db-SHOP", False)
    assert result["settings"]["DBInstanceIdentifier"] == "shop"


def test_an_instance_whose_first_backup_is_not_finished_has_no_window(aws: ScriptedAws) -> None:
    fresh = {key: value for key, value in SHOP.items() if key != "LatestRestorableTime"}
    assert look(region(aws, fresh))["windows"] == []
    with pytest.raises(RecoveryError, match="no automated backups to restore a moment from"):
        look(aws, at="2026-11-25T03:00:00Z")


def test_a_window_whose_beginning_aws_does_not_tell(aws: ScriptedAws) -> None:
    result = look(region(aws, SHOP), at="2026-11-01T00:00:00Z")
    assert result["windows"][0]["earliest"] is None
    assert len(result["able"]) == 1


def test_replicated_and_retained_backups_are_found_in_their_regions(
    aws: ScriptedAws, another_region: Callable[[str], ScriptedAws]
) -> None:
    retained = {**BACKUP, "Status": "retained"}
    replicated = {**BACKUP, "DBInstanceAutomatedBackupsArn": "arn:aws:rds:eu-west-1:123456789012:auto-backup:ab-2"}
    result = look(region(aws, None, [retained]), region(another_region("eu-west-1"), None, [replicated]))
    assert [(window["region"], window["kind"]) for window in result["windows"]] == [
        ("eu-central-1", "retained"),
        ("eu-west-1", "replicated"),
    ]
    assert result["exists"] is False
    assert result["settings"] == {}


def test_backups_are_found_by_the_name_of_an_instance_that_is_not_there(
    aws: ScriptedAws, another_region: Callable[[str], ScriptedAws]
) -> None:
    away = region(another_region("eu-west-1"))
    retained = {**BACKUP, "Status": "retained"}
    others = {**BACKUP, "DBInstanceIdentifier": "shop-2", "DbiResourceId": "db-2"}
    region(aws).script("DescribeDBInstanceAutomatedBackups", backups_of({"shop-2"}, [others, retained]))
    away.script("DescribeDBInstanceAutomatedBackups", backups_of(set(), [others, BACKUP]))
    result = look(aws, away, instance="Shop")
    assert [(window["region"], window["identifier"], window["kind"]) for window in result["windows"]] == [
        ("eu-central-1", "shop", "retained"),
        ("eu-west-1", "shop", "replicated"),
    ]


@pytest.mark.parametrize(
    "trouble",
    [
        EndpointConnectionError(endpoint_url="https://rds.eu-central-1.amazonaws.com"),
        ConnectTimeoutError(endpoint_url="https://rds.eu-central-1.amazonaws.com"),
        "ServiceUnavailable",
        "InternalFailure",
    ],
)
def test_a_lost_region_is_reported_and_the_others_are_still_shown(
    aws: ScriptedAws, another_region: Callable[[str], ScriptedAws], trouble: Any
) -> None:
    aws.script("DescribeDBInstances", trouble)
    replicated = {**BACKUP, "DBInstanceAutomatedBackupsArn": "arn:aws:rds:eu-west-1:123456789012:auto-backup:ab-2"}
    result = look(aws, region(another_region("eu-west-1"), None, [replicated]), at="2026-11-25T03:00:00Z")
    assert result["regions"]["eu-central-1"]["reachable"] is False
    assert result["regions"]["eu-central-1"]["error"]
    assert result["regions"]["eu-west-1"] == {"reachable": True, "error": None}
    assert result["exists"] is None
    assert [window["region"] for window in result["able"]] == ["eu-west-1"]


def test_a_missing_permission_is_no_lost_region(aws: ScriptedAws) -> None:
    aws.script("DescribeDBInstances", "AccessDenied")
    with pytest.raises(ClientError):
        look(aws)


def test_nothing_anywhere_is_an_error_that_names_where_it_was_looked_for(
    aws: ScriptedAws, another_region: Callable[[str], ScriptedAws]
) -> None:
    lost = another_region("eu-west-1")
    lost.script("DescribeDBInstances", "ServiceUnavailable")
    with pytest.raises(RecoveryError) as caught:
        look(region(aws), lost)
    assert "no instance shop" in caught.value.msg
    assert "in eu-central-1; not reached: eu-west-1" in caught.value.msg


@pytest.mark.parametrize(
    ("at", "nearest"),
    [
        ("2026-11-25T03:20:01Z", "2026-11-25T03:20:00+00:00"),
        ("2026-11-17T00:00:00Z", "2026-11-18T04:00:00+00:00"),
    ],
)
def test_a_moment_outside_names_the_window_the_nearest_moment_and_the_last_snapshot_before(
    aws: ScriptedAws, at: str, nearest: str
) -> None:
    with pytest.raises(RecoveryError) as caught:
        look(
            region(aws, SHOP, [BACKUP], [SNAPSHOT, {**SNAPSHOT, "Status": "failed", "SnapshotCreateTime": NOW}]), at=at
        )
    assert "2026-11-18T04:00:00+00:00 to 2026-11-25T03:20:00+00:00" in caught.value.msg
    assert caught.value.details["nearest"] == nearest
    assert "last snapshot before is shop-before of 2026-11-16T03:30:00+00:00" in caught.value.msg


@pytest.mark.parametrize("at", ["2026-11-25T03:20:00Z", "2026-11-18T04:00:00Z", "2026-11-25T04:20:00+01:00"])
def test_the_ends_of_the_window_belong_to_it(aws: ScriptedAws, at: str) -> None:
    assert len(look(region(aws, SHOP, [BACKUP]), at=at)["able"]) == 1


def test_a_cluster_tells_its_own_window_and_its_members(aws: ScriptedAws) -> None:
    cluster = {
        "DBClusterIdentifier": "orders",
        "DbClusterResourceId": "cluster-ORDERS",
        "EarliestRestorableTime": EARLIEST,
        "LatestRestorableTime": LATEST,
        "BackupRetentionPeriod": 14,
        "DBClusterMembers": [{"DBInstanceIdentifier": "orders-a", "IsClusterWriter": True}],
    }
    older = {
        "DBClusterIdentifier": "orders",
        "DbClusterResourceId": "cluster-OLD",
        "DBClusterArn": "arn:aws:rds:eu-central-1:123456789012:cluster:orders",
        "Status": "retained",
        "RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": EARLIEST},
    }
    own = {**older, "DbClusterResourceId": "cluster-ORDERS", "Status": "active"}
    snapshot = {
        "DBClusterSnapshotIdentifier": "orders-before",
        "DBClusterSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:cluster-snapshot:orders-before",
        "DBClusterIdentifier": "orders",
        "SourceDBClusterSnapshotArn": "arn:aws:rds:eu-west-1:123456789012:cluster-snapshot:orders-before",
        "SnapshotCreateTime": NOW - timedelta(hours=1),
        "Status": "available",
        "StorageEncrypted": True,
    }
    aws.script("DescribeDBClusters", {"DBClusters": [cluster]})
    aws.script("DescribeDBInstances", {"DBInstances": [{"DBInstanceIdentifier": "orders-a", "PromotionTier": 1}]})
    aws.script("DescribeDBClusterAutomatedBackups", {"DBClusterAutomatedBackups": [own, older]})
    aws.script("DescribeDBClusterSnapshots", {"DBClusterSnapshots": [snapshot]})
    result = look(aws, instance=None, cluster="orders", at="2026-11-25T03:00:00Z")
    assert [window["resource_id"] for window in result["windows"]] == ["cluster-ORDERS", "cluster-OLD"]
    assert [window["resource_id"] for window in result["able"]] == ["cluster-ORDERS"]
    assert result["settings"]["Members"][0]["DBInstanceIdentifier"] == "orders-a"
    (told,) = result["snapshots"]
    assert (told["kind"], told["source_region"], told["size"], told["age"]) == ("cluster", "eu-west-1", None, 3600)


def test_each_region_is_asked_once(aws: ScriptedAws) -> None:
    look(region(aws, SHOP, [BACKUP]), aws)
    assert len(aws.called("DescribeDBInstances")) == 1


def test_all_pages_are_read(aws: ScriptedAws) -> None:
    region(aws, SHOP, [BACKUP])
    aws.script("DescribeDBSnapshots", {"DBSnapshots": [SNAPSHOT], "Marker": "2"}, {"DBSnapshots": [SNAPSHOT]})
    assert len(look(aws)["snapshots"]) == 2
    assert aws.called("DescribeDBSnapshots")[1]["Marker"] == "2"


def test_recovery_points_of_aws_backup_are_told(aws: ScriptedAws) -> None:
    point = {
        **SNAPSHOT,
        "DBSnapshotIdentifier": "awsbackup:job-8e15dab5",
        "SnapshotType": "awsbackup",
        "SnapshotCreateTime": NOW - timedelta(hours=5),
    }

    def snapshots(asked: dict[str, Any]) -> Any:
        """Only who asks for them is told those of AWS Backup (DescribeDBSnapshots, SnapshotType)."""
        return {"DBSnapshots": [point] if asked.get("SnapshotType") == "awsbackup" else [SNAPSHOT]}

    region(aws, {**SHOP, "BackupRetentionPeriod": 0, "LatestRestorableTime": LATEST - timedelta(days=3)})
    aws.script("DescribeDBSnapshots", snapshots)
    assert [(told["identifier"], told["type"]) for told in look(aws)["snapshots"]] == [
        ("awsbackup:job-8e15dab5", "awsbackup"),
        ("shop-before", "manual"),
    ]
    with pytest.raises(RecoveryError, match="last snapshot before is awsbackup:job-8e15dab5"):
        look(aws, at="2026-11-25T02:00:00Z")
    assert aws.rds().snapshot("awsbackup:job-8e15dab5") is not None


def test_a_moment_before_a_blue_green_switchover_points_to_the_one_that_was_called_so(aws: ScriptedAws) -> None:
    old = {**SHOP, "DBInstanceIdentifier": "shop-old1", "DbiResourceId": "db-OLD"}
    others = [{**SHOP, "DBInstanceIdentifier": name, "DbiResourceId": "db-X"} for name in ("shop-old", "shop-older1")]
    backups = [
        {**BACKUP, "RestoreWindow": {"EarliestTime": LATEST - timedelta(hours=1), "LatestTime": LATEST}},
        {**BACKUP, "DBInstanceIdentifier": "shop-old1", "DbiResourceId": "db-OLD"},
    ]

    def instances(asked: dict[str, Any]) -> Any:
        return {"DBInstances": [SHOP] if asked.get("DBInstanceIdentifier") else [SHOP, old, *others]}

    aws.script("DescribeDBInstances", instances)
    aws.script("DescribeDBInstanceAutomatedBackups", {"DBInstanceAutomatedBackups": backups})
    aws.script("DescribeDBSnapshots", {"DBSnapshots": []})
    with pytest.raises(RecoveryError) as caught:
        look(aws, at="2026-11-20T00:00:00Z")
    assert "By its name, shop-old1 (db-OLD; 2026-11-18T04:00:00+00:00 to 2026-11-25T03:20:00+00:00 " in caught.value.msg
    assert "source_db_instance_identifier" in caught.value.msg
    assert "shop-older1" not in caught.value.msg
