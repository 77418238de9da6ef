# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.backup_settings import (
    SETTINGS,
    Settings,
    desired_settings,
    ensure_settings,
    lasting,
    overlap,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, INSTANCE

NOW = {"backup_retention_period": 14, "deletion_protection": False, "copy_tags_to_snapshot": True}
NOW["preferred_backup_window"] = "03:00-03:30"
OTHER = {
    "backup_retention_period": 21,
    "preferred_backup_window": "01:00-01:30",
    "deletion_protection": True,
    "copy_tags_to_snapshot": False,
}
BY_ID = [{"Name": "dbi-resource-id", "Values": ["db-A"]}]


def instance(status: str = "available", **more: Any) -> dict[str, Any]:
    item = {
        "DBInstanceIdentifier": "shop",
        "DbiResourceId": "db-A",
        "DBInstanceStatus": status,
        "Endpoint": {"Address": "shop.example.com", "Port": 5432},
        "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
        **{SETTINGS[option]: value for option, value in NOW.items()},
        **more,
    }
    return {"DBInstances": [item]}


def cluster(**more: Any) -> dict[str, Any]:
    item = {
        "DBClusterIdentifier": "orders",
        "DbClusterResourceId": "cluster-A",
        "Status": "available",
        "Endpoint": "orders.example.com",
        **{SETTINGS[option]: value for option, value in NOW.items()},
        **more,
    }
    return {"DBClusters": [item]}


def ensure(world: Any, here: Any, check_mode: bool = False, shorter: bool = False, **wanted: Any) -> dict[str, Any]:
    settings = Settings(here.rds, world.waiting, INSTANCE, "shop")
    return ensure_settings(settings, desired_settings(**wanted, allow_shorter_retention=shorter), check_mode)


@pytest.mark.parametrize("option", SETTINGS)
def test_a_change_of_one_setting_sends_that_one_and_nothing_else(world: Any, here: Any, option: str) -> None:
    after = {SETTINGS[option]: OTHER[option]}
    here.answers("describe_db_instances", instance(), DBInstanceIdentifier="shop")
    here.answers("describe_db_instances", instance(), Filters=BY_ID)
    here.answers("modify_db_instance", {}, DBInstanceIdentifier="shop", **after)
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance("modifying"))
    here.answers("describe_db_instances", instance(**after))
    # Everything else is wished for as it is already, as the role does.
    result = ensure(world, here, **{**NOW, option: OTHER[option]})
    assert result["changed"]
    assert result["changes"] == {option: OTHER[option]}
    assert result["diff"] == {"before": NOW, "after": {**NOW, option: OTHER[option]}}
    assert result["settings"][SETTINGS[option]] == OTHER[option]
    assert (result["resource_id"], result["region"]) == ("db-A", "eu-central-1")


def test_settings_that_are_so_already_are_neither_sent_nor_waited_for(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance("backing-up"))
    result = ensure(world, here, **NOW)
    assert not result["changed"]
    assert result["changes"] == {}
    assert world.clock.now == 0


def test_what_is_not_given_stays_as_it_is(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    assert ensure(world, here)["changed"] is False


def test_check_mode_says_what_would_change_and_changes_nothing(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    result = ensure(world, here, check_mode=True, backup_retention_period=21)
    assert result["changed"]
    assert result["changes"] == {"backup_retention_period": 21}
    assert result["diff"]["after"] == {"backup_retention_period": 21}
    assert result["settings"]["BackupRetentionPeriod"] == 14


def test_a_database_that_is_busy_is_waited_for_and_looked_at_again(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance("modifying"))
    here.answers("describe_db_instances", instance("modifying"))
    # Somebody else's change was the same one: nothing is left to send.
    here.answers("describe_db_instances", instance(BackupRetentionPeriod=21))
    here.answers("describe_db_instances", instance(BackupRetentionPeriod=21))
    assert ensure(world, here, backup_retention_period=21)["settings"]["BackupRetentionPeriod"] == 21


def test_a_backup_that_begins_between_the_look_and_the_call_is_waited_for(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    here.refuses("modify_db_instance", "InvalidDBInstanceState", "Instance shop is backing-up.")
    here.answers("modify_db_instance", {})
    here.answers("describe_db_instances", instance(DeletionProtection=True))
    assert ensure(world, here, deletion_protection=True)["changed"]


def test_backups_are_switched_on_at_once_and_not_in_the_next_maintenance_window(world: Any, here: Any) -> None:
    off = {"BackupRetentionPeriod": 0}
    here.answers("describe_db_instances", instance(**off))
    here.answers("describe_db_instances", instance(**off))
    here.answers("modify_db_instance", {}, DBInstanceIdentifier="shop", BackupRetentionPeriod=7, ApplyImmediately=True)
    here.answers("describe_db_instances", instance(**off, PendingModifiedValues={"BackupRetentionPeriod": 7}))
    here.answers("describe_db_instances", instance("backing-up", BackupRetentionPeriod=7))
    here.answers("describe_db_instances", instance(BackupRetentionPeriod=7))
    assert ensure(world, here, backup_retention_period=7)["changed"]


def test_a_change_of_somebody_else_goes_on_waiting_for_the_maintenance_window(world: Any, here: Any) -> None:
    waits = {"PendingModifiedValues": {"DBInstanceClass": "db.r6g.xlarge"}}
    here.answers("describe_db_instances", instance(**waits))
    here.answers("describe_db_instances", instance(**waits))
    here.answers("modify_db_instance", {}, DBInstanceIdentifier="shop", BackupRetentionPeriod=21)
    here.answers("describe_db_instances", instance(**waits, BackupRetentionPeriod=21))
    assert ensure(world, here, backup_retention_period=21)["changed"]


def test_a_change_that_would_apply_that_of_somebody_else_is_refused(world: Any, here: Any) -> None:
    waits = {"PendingModifiedValues": {"DBInstanceClass": "db.r6g.xlarge"}, "BackupRetentionPeriod": 0}
    here.answers("describe_db_instances", instance(**waits))
    with pytest.raises(RecoveryError, match=r"wait for its maintenance window \(DBInstanceClass\).*Nothing was") as no:
        ensure(world, here, backup_retention_period=21)
    assert no.value.details["pending"] == ["DBInstanceClass"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_shorter_retention_is_refused_since_it_deletes_backups(world: Any, here: Any, check_mode: bool) -> None:
    here.answers("describe_db_instances", instance())
    with pytest.raises(RecoveryError, match=r"7 is shorter than the 14 days .* deletes .* at once. Nothing was"):
        ensure(world, here, check_mode, backup_retention_period=7)


def test_a_shorter_retention_that_is_meant_is_set(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    assert ensure(world, here, check_mode=True, shorter=True, backup_retention_period=7)["changed"]


def test_a_member_of_a_cluster_is_refused_with_its_name(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance(DBClusterIdentifier="orders"))
    with pytest.raises(RecoveryError, match=r"shop is a member of DB cluster orders.*db_cluster_identifier: orders"):
        ensure(world, here, backup_retention_period=21)


def test_a_database_that_is_not_there_is_an_error_in_check_mode_too(world: Any, here: Any) -> None:
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    with pytest.raises(RecoveryError, match="there is no DB instance shop in eu-central-1"):
        ensure(world, here, check_mode=True, backup_retention_period=21)


def test_a_database_that_does_not_come_back_is_an_error(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance("storage-full"))
    with pytest.raises(RecoveryError, match="storage-full"):
        ensure(world, here, backup_retention_period=21)


def test_a_change_that_aws_does_not_apply_in_time_is_an_error(world: Any, here: Any) -> None:
    world.waiting.timeout = 2.0
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    here.answers("modify_db_instance", {})
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    with pytest.raises(RecoveryError, match="DeletionProtection not applied yet"):
        ensure(world, here, deletion_protection=True)


def test_a_cluster_is_changed_at_once_and_shown_with_its_members(world: Any, here: Any) -> None:
    members = {"DBClusterMembers": [{"DBInstanceIdentifier": "shop", "IsClusterWriter": True}]}
    here.answers("describe_db_clusters", cluster(**members), DBClusterIdentifier="orders")
    here.answers("describe_db_clusters", cluster(**members))
    here.answers("modify_db_cluster", {}, DBClusterIdentifier="orders", BackupRetentionPeriod=21, ApplyImmediately=True)
    here.answers("describe_db_clusters", cluster(**members, BackupRetentionPeriod=21))
    here.answers("describe_db_instances", instance(), DBInstanceIdentifier="shop")
    settings = Settings(here.rds, world.waiting, CLUSTER, "orders")
    result = ensure_settings(settings, desired_settings(backup_retention_period=21), False)
    assert result["resource_id"] == "cluster-A"
    assert [member["DBInstanceIdentifier"] for member in result["settings"]["Members"]] == ["shop"]
    assert "DBInstanceStatus" not in result["settings"]["Members"][0]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"backup_retention_period": 0}, "not from 1 to 35"),
        ({"backup_retention_period": 36}, "not from 1 to 35"),
        ({"preferred_backup_window": "1:00-1:30"}, "HH:MM-HH:MM"),
        ({"preferred_backup_window": "01:00-01:29"}, "at least 30 minutes"),
        ({"preferred_backup_window": "25:00-25:30"}, "HH:MM-HH:MM"),
    ],
)
def test_what_aws_would_refuse_is_refused_before_anything_is_asked(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(RecoveryError, match=says):
        desired_settings(**wanted)


@pytest.mark.parametrize(
    ("backup", "maintenance", "touches"),
    [
        ("01:00-01:30", "sun:01:10-sun:01:40", True),
        ("01:00-01:30", "sun:01:30-sun:02:00", False),
        ("01:00-01:30", "sun:00:30-sun:01:00", False),
        ("01:00-01:30", "sun:00:30-sun:01:01", True),
        ("23:45-00:15", "sat:00:10-sat:00:40", True),
        ("23:45-00:15", "sun:00:10-sun:00:40", True),
        ("01:00-01:30", "sat:23:30-sun:01:05", True),
        ("05:00-07:00", "wed:06:00-wed:06:30", True),
        ("05:00-05:30", "", False),
    ],
)
def test_windows_that_meet_are_known(backup: str, maintenance: str, touches: bool) -> None:
    assert overlap(backup, maintenance) is touches


def test_a_backup_window_in_the_maintenance_window_is_refused_with_both(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    with pytest.raises(RecoveryError, match=r"05:15-05:45 meets the maintenance window sun:05:00-sun:05:30 of shop"):
        ensure(world, here, check_mode=True, preferred_backup_window="05:15-05:45")


def test_what_is_stored_is_json_without_secrets_and_the_same_tomorrow() -> None:
    moment = datetime(2026, 11, 25, 3, 12, tzinfo=timezone.utc)
    described = {
        "DBInstanceIdentifier": "shop",
        "InstanceCreateTime": moment,
        "LatestRestorableTime": moment,
        "DBInstanceStatus": "available",
        "PendingModifiedValues": {"MasterUserPassword": "****"},
        "TdeCredentialPassword": "x",
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
        "Members": [{"DBInstanceIdentifier": "a", "DBInstanceStatus": "available"}],
    }
    kept = lasting(described)
    assert json.loads(json.dumps(kept)) == {
        "DBInstanceIdentifier": "shop",
        "InstanceCreateTime": "2026-11-25T03:12:00+00:00",
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
        "Members": [{"DBInstanceIdentifier": "a"}],
    }


@pytest.mark.parametrize("wanted", [{"backup_retention_period": 21}, {"preferred_backup_window": "01:00-01:30"}])
def test_backups_that_are_aws_backups_are_left_to_it(world: Any, here: Any, wanted: dict[str, Any]) -> None:
    point = "arn:aws:backup:eu-central-1:123456789012:recovery-point:continuous:db-a-1"
    here.answers("describe_db_instances", instance(AwsBackupRecoveryPointArn=point))
    with pytest.raises(RecoveryError, match=r"those of AWS Backup .*recovery-point.* in its backup plan"):
        ensure(world, here, **wanted)


def test_what_is_not_aws_backups_to_say_is_changed_all_the_same(world: Any, here: Any) -> None:
    point = "arn:aws:backup:eu-central-1:123456789012:recovery-point:continuous:db-a-1"
    here.answers("describe_db_instances", instance(AwsBackupRecoveryPointArn=point))
    assert ensure(world, here, check_mode=True, deletion_protection=True)["changed"]
