# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores of instances: what is asked of AWS, in which order, and what happens when AWS says no."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError, error_code
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.explain import explain
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import STUCK
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.restore import Asked, Restore
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws
from botocore.exceptions import EndpointConnectionError

EARLIEST = datetime(2026, 11, 18, 4, 0, tzinfo=timezone.utc)
LATEST = datetime(2026, 11, 25, 3, 20, tzinfo=timezone.utc)
AT = "2026-11-25T03:11:59+00:00"
SOURCE: dict[str, Any] = {
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "DBInstanceArn": "arn:aws:rds:eu-central-1:123456789012:db:shop",
    "DBInstanceStatus": "available",
    "Engine": "postgres",
    "DBInstanceClass": "db.r6g.large",
    "MultiAZ": True,
    "DBParameterGroups": [{"DBParameterGroupName": "shop-17", "ParameterApplyStatus": "in-sync"}],
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
    "DBSubnetGroup": {"DBSubnetGroupName": "private"},
    "Endpoint": {"Address": "shop.x.eu-central-1.rds.amazonaws.com", "Port": 5432},
    "DeletionProtection": True,
    "BackupRetentionPeriod": 7,
    "MonitoringInterval": 30,
    "MonitoringRoleArn": "arn:aws:iam::123456789012:role/monitoring",
    "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
    "LatestRestorableTime": LATEST,
    "TagList": [{"Key": "team", "Value": "shop"}, {"Key": "dbre:restored-from", "Value": "an older incident"}],
}
BACKUP: dict[str, Any] = {
    "DBInstanceArn": SOURCE["DBInstanceArn"],
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "DBInstanceAutomatedBackupsArn": "arn:aws:rds:eu-central-1:123456789012:auto-backup:ab-1",
    "Status": "active",
    "Engine": "postgres",
    "RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": LATEST},
}
PARAMS: dict[str, Any] = {
    "source_db_instance_identifier": "shop",
    "db_instance_identifier": "shop-side",
    "at": AT,
    "latest": False,
    "incident": "incident-7",
    "inherit": True,
}


class Rds:
    """An AWS with the instance shop. The copy comes with the default settings of AWS and goes through ``statuses``."""

    def __init__(self, aws: ScriptedAws, statuses: tuple[str, ...] = ("creating", "backing-up", "modifying")) -> None:
        self.aws = aws
        self.statuses = list(statuses)
        self.instances: dict[str, dict[str, Any]] = {"shop": dict(SOURCE)}
        self.backups = [BACKUP]
        self.hidden = 1  # looks by which a new instance is not found yet
        aws.script("DescribeDBInstances", self.describe)
        aws.script("DescribeDBInstanceAutomatedBackups", self.describe_backups)
        aws.script("RestoreDBInstanceToPointInTime", self.restore)
        aws.script("RestoreDBInstanceFromDBSnapshot", self.restore)
        aws.script("ModifyDBInstance", self.modify)
        aws.script("AddRoleToDBInstance", self.add_role)
        aws.script("AddTagsToResource", self.add_tags)
        aws.script("RebootDBInstance", self.reboot)

    def describe(self, asked: dict[str, Any]) -> Any:
        if "Filters" in asked:
            wanted = asked["Filters"][0]["Values"][0]
            found = [item for item in self.instances.values() if item["DbiResourceId"] == wanted]
        else:
            found = [item for name, item in self.instances.items() if asked.get("DBInstanceIdentifier") in (None, name)]
            if not found:
                return "DBInstanceNotFound"
        if found and found[0]["DbiResourceId"] == "db-SIDE":
            if self.hidden:
                self.hidden -= 1
                return {"DBInstances": []} if "Filters" in asked else "DBInstanceNotFound"
            found[0]["DBInstanceStatus"] = self.statuses.pop(0) if self.statuses else "available"
            if found[0]["DBInstanceStatus"] == "available":
                found[0].setdefault("Endpoint", {"Address": "shop-side.x", "Port": found[0]["DbInstancePort"]})
        return {"DBInstances": [dict(item) for item in found]}

    def describe_backups(self, asked: dict[str, Any]) -> Any:
        if "DBInstanceIdentifier" in asked and asked["DBInstanceIdentifier"] not in self.instances:
            return "DBInstanceNotFound"  # "must match the identifier of an existing DB instance" (API reference)
        keys = [
            key for key in ("DBInstanceIdentifier", "DbiResourceId", "DBInstanceAutomatedBackupsArn") if key in asked
        ]
        return {"DBInstanceAutomatedBackups": [b for b in self.backups if all(b.get(k) == asked[k] for k in keys)]}

    def restore(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("TargetDBInstanceIdentifier") or asked["DBInstanceIdentifier"]
        group = asked.get("DBParameterGroupName", "default.postgres17")
        self.instances[name] = {
            "DBInstanceIdentifier": name,
            "DbiResourceId": "db-SIDE",
            "DBInstanceArn": f"arn:aws:rds:eu-central-1:123456789012:db:{name}",
            "DBInstanceStatus": "creating",
            "Engine": "postgres",
            "TagList": asked.get("Tags", []),
            "DBInstanceClass": asked.get("DBInstanceClass", "db.r6g.large"),
            "MultiAZ": asked.get("MultiAZ", False),
            "DeletionProtection": asked.get("DeletionProtection", False),
            "BackupRetentionPeriod": asked.get("BackupRetentionPeriod", 7),
            "DBParameterGroups": [{"DBParameterGroupName": group, "ParameterApplyStatus": "in-sync"}],
            "VpcSecurityGroups": [
                {"VpcSecurityGroupId": name, "Status": "active"} for name in asked.get("VpcSecurityGroupIds", ["sg-0"])
            ],
            "DBSubnetGroup": {"DBSubnetGroupName": asked.get("DBSubnetGroupName", "default")},
            "PreferredMaintenanceWindow": "mon:01:00-mon:01:30",
            "DbInstancePort": asked.get("Port", 5432),
            "AllocatedStorage": asked.get("AllocatedStorage", 20),
            "StorageType": asked.get("StorageType", "gp2"),
        }
        return {"DBInstance": dict(self.instances[name])}

    def modify(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self.instances[asked["DBInstanceIdentifier"]]
        self.statuses = ["available", "modifying"]
        plain = {
            "MonitoringInterval",
            "MonitoringRoleArn",
            "PreferredMaintenanceWindow",
            "DeletionProtection",
            "MultiAZ",
        }
        found.update({key: value for key, value in asked.items() if key in plain})
        if "MasterUserPassword" in asked:
            found["PendingModifiedValues"] = {"MasterUserPassword": "****"}
            self.aws.script("DescribeDBInstances", self.describe, self.describe, self.without_pending, self.describe)
        return {"DBInstance": dict(found)}

    def without_pending(self, asked: dict[str, Any]) -> Any:
        self.instances["shop-side"]["PendingModifiedValues"] = {}
        return self.describe(asked)

    def add_role(self, asked: dict[str, Any]) -> dict[str, Any]:
        roles = self.instances[asked["DBInstanceIdentifier"]].setdefault("AssociatedRoles", [])
        roles.append({"RoleArn": asked["RoleArn"], "FeatureName": asked["FeatureName"], "Status": "ACTIVE"})
        return {}

    def add_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = next(item for item in self.instances.values() if item["DBInstanceArn"] == asked["ResourceName"])
        keys = {tag["Key"] for tag in asked["Tags"]}
        found["TagList"] = [tag for tag in found["TagList"] if tag["Key"] not in keys] + asked["Tags"]
        return {}

    def reboot(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.instances[asked["DBInstanceIdentifier"]]["DBParameterGroups"][0]["ParameterApplyStatus"] = "in-sync"
        self.statuses = ["rebooting", "rebooting"]
        return {"DBInstance": {}}


def no_region(region: str) -> Any:
    raise AssertionError(f"nobody was to look in {region}")


def run(aws: ScriptedAws, waiting: Waiting, check_mode: bool = False, regions: Any = no_region, **more: Any) -> Any:
    asked = pick(Asked, {**PARAMS, **more})
    overrides = {option: value for option, value in more.items() if not hasattr(asked, option)}
    return Restore(dataclasses.replace(asked, overrides=overrides), aws.rds(), regions, waiting, check_mode).run()


def refused(aws: ScriptedAws, waiting: Waiting, **more: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        run(aws, waiting, **more)
    return caught.value.msg


def tags_of(rds: Rds, name: str = "shop-side") -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in rds.instances[name]["TagList"]}


# The whole way


def test_a_restore_passes_what_the_call_takes_modifies_the_rest_and_is_marked_as_done(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    result = run(aws, waiting)
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["SourceDBInstanceIdentifier"] == "shop"
    assert restored["TargetDBInstanceIdentifier"] == "shop-side"
    assert restored["RestoreTime"] == datetime(2026, 11, 25, 3, 11, 59, tzinfo=timezone.utc)
    assert restored["VpcSecurityGroupIds"] == ["sg-1"]
    assert restored["DBParameterGroupName"] == "shop-17"
    assert restored["DBSubnetGroupName"] == "private"
    assert restored["MultiAZ"] is True
    assert restored["DeletionProtection"] is True
    (modified,) = aws.called("ModifyDBInstance")
    assert modified == {
        "DBInstanceIdentifier": "shop-side",
        "ApplyImmediately": True,
        "MonitoringInterval": 30,
        "MonitoringRoleArn": "arn:aws:iam::123456789012:role/monitoring",
        "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
    }
    assert aws.written() == ["RestoreDBInstanceToPointInTime", "ModifyDBInstance", "AddTagsToResource"]
    assert tags_of(rds) == {
        "team": "shop",
        "dbre:restored-from": "shop db-SHOP",
        "dbre:restored-to": AT,
        "dbre:restored-as": "shop-side",
        "dbre:restore-state": "done",
        "dbre:incident": "incident-7",
    }
    assert result["changed"] is True
    assert result["action"] == "restore"
    assert (result["endpoint"], result["port"], result["resource_id"]) == ("shop-side.x", 5432, "db-SIDE")
    assert result["restored_to"] == AT
    assert result["inherited"]["multi_az"] is True
    assert result["seconds"]["available"] > 0


def test_the_copy_is_waited_for_by_its_resource_id_though_it_is_not_found_at_first(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    rds.hidden = 3
    assert run(aws, waiting)["instance"]["DBInstanceStatus"] == "available"
    by_id = [asked for asked in aws.called("DescribeDBInstances") if "Filters" in asked]
    assert {asked["Filters"][0]["Values"][0] for asked in by_id} == {"db-SIDE"}


def test_a_second_run_changes_nothing(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    run(aws, waiting)
    aws.calls.clear()
    result = run(aws, waiting)
    assert (result["changed"], result["action"]) == (False, "none")
    assert aws.written() == []


def test_a_finished_copy_is_found_again_when_its_source_is_gone_or_has_other_settings(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    run(aws, waiting)
    rds.instances["shop"]["MonitoringInterval"] = 60
    aws.calls.clear()
    assert run(aws, waiting)["changed"] is False
    del rds.instances["shop"]
    assert run(aws, waiting)["changed"] is False


def test_an_override_that_is_changed_later_is_kept_without_touching_anything_else(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    Rds(aws)
    run(aws, waiting)
    aws.calls.clear()
    assert run(aws, waiting, deletion_protection=False)["changed"] is True
    (modified,) = aws.called("ModifyDBInstance")
    assert modified == {"DBInstanceIdentifier": "shop-side", "ApplyImmediately": True, "DeletionProtection": False}


@pytest.mark.parametrize("killed_before", ["ModifyDBInstance", "AddTagsToResource"])
def test_a_restore_that_was_killed_goes_on_where_it_was(aws: ScriptedAws, waiting: Waiting, killed_before: str) -> None:
    def killed(_asked: dict[str, Any]) -> Any:
        raise KeyboardInterrupt

    rds = Rds(aws)
    aws.script(killed_before, killed)
    with pytest.raises(KeyboardInterrupt):
        run(aws, waiting)
    # Meanwhile the window has moved on past the moment.
    rds.backups = [{**BACKUP, "RestoreWindow": {"EarliestTime": LATEST, "LatestTime": LATEST}}]
    aws.script("ModifyDBInstance", rds.modify)
    aws.script("AddTagsToResource", rds.add_tags)
    aws.calls.clear()
    result = run(aws, waiting)
    assert result["action"] == "continue"
    assert aws.called("RestoreDBInstanceToPointInTime") == []
    assert rds.instances["shop-side"]["PreferredMaintenanceWindow"] == "sun:05:00-sun:05:30"
    assert tags_of(rds)["dbre:restore-state"] == "done"


def test_a_restore_whose_answer_was_lost_goes_on_with_the_copy_it_made(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.hidden = 0

    def made_but_not_told(asked: dict[str, Any]) -> str:
        rds.restore(asked)
        return "DBInstanceAlreadyExists"

    aws.script("RestoreDBInstanceToPointInTime", made_but_not_told)
    assert run(aws, waiting)["resource_id"] == "db-SIDE"


def test_the_latest_moment_is_recorded_as_aws_told_it(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    result = run(aws, waiting, at=None, latest=True)
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["UseLatestRestorableTime"] is True
    assert "RestoreTime" not in restored
    assert result["restored_to"] == "2026-11-25T03:20:00+00:00"
    assert tags_of(rds)["dbre:restored-to"] == "latest 2026-11-25T03:20:00+00:00"
    rds.backups = [{**BACKUP, "RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": datetime.now(timezone.utc)}}]
    assert run(aws, waiting, at=None, latest=True)["changed"] is False


def test_a_fraction_of_a_second_is_dropped_since_rds_does_not_know_it(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    result = run(aws, waiting, at="2026-11-25T04:11:59.9+01:00")
    assert result["restored_to"] == AT


def test_false_and_empty_overrides_reach_the_restore_call(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    result = run(
        aws,
        waiting,
        multi_az=False,
        deletion_protection=False,
        backup_retention_period=0,
        vpc_security_group_ids=[],
        tags={},
        monitoring_interval=0,
    )
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["MultiAZ"] is False
    assert restored["DeletionProtection"] is False
    assert restored["BackupRetentionPeriod"] == 0
    assert "VpcSecurityGroupIds" not in restored
    assert "team" not in tags_of(rds)
    (modified,) = aws.called("ModifyDBInstance")
    assert "MonitoringInterval" not in modified
    assert {"name": "monitoring_role_arn", "reason": "monitoring_interval is 0"} in result["not_inherited"]


def test_nothing_is_inherited_when_that_is_asked_for(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    result = run(aws, waiting, inherit=False, db_instance_class="db.t4g.small")
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert set(restored) == {
        "SourceDBInstanceIdentifier",
        "TargetDBInstanceIdentifier",
        "RestoreTime",
        "DBInstanceClass",
        "Tags",
    }
    assert result["inherited"] == {}


def test_iam_roles_are_added_and_waited_for(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    role = "arn:aws:iam::123456789012:role/s3"
    rds.instances["shop"]["AssociatedRoles"] = [{"RoleArn": role, "FeatureName": "s3Import", "Status": "ACTIVE"}]
    run(aws, waiting)
    (added,) = aws.called("AddRoleToDBInstance")
    assert added == {"DBInstanceIdentifier": "shop-side", "RoleArn": role, "FeatureName": "s3Import"}


def test_a_role_that_rds_cannot_use_is_an_error_that_names_it(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    role = "arn:aws:iam::123456789012:role/s3"
    rds.instances["shop"]["AssociatedRoles"] = [{"RoleArn": role, "FeatureName": "s3Import", "Status": "ACTIVE"}]

    def invalid(asked: dict[str, Any]) -> dict[str, Any]:
        rds.add_role(asked)
        rds.instances["shop-side"]["AssociatedRoles"][0]["Status"] = "INVALID"
        return {}

    aws.script("AddRoleToDBInstance", invalid)
    said = refused(aws, waiting)
    assert role in said
    assert "associated_roles" in said


def test_a_parameter_group_that_waits_for_a_reboot_gets_one(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)

    def pending(asked: dict[str, Any]) -> dict[str, Any]:
        answer = rds.restore(asked)
        rds.instances["shop-side"]["DBParameterGroups"][0]["ParameterApplyStatus"] = "pending-reboot"
        return answer

    aws.script("RestoreDBInstanceToPointInTime", pending)
    result = run(aws, waiting)
    assert len(aws.called("RebootDBInstance")) == 1
    assert result["instance"]["DBParameterGroups"][0]["ParameterApplyStatus"] == "in-sync"


def test_the_password_is_set_after_everything_else_and_is_in_no_result(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    result = run(aws, waiting, master_user_password="one-time")
    modified = aws.called("ModifyDBInstance")
    assert modified[-1]["MasterUserPassword"] == "one-time"
    assert "one-time" not in str(result)
    assert result["instance"]["PendingModifiedValues"] == {}


def test_a_change_that_is_refused_right_after_the_restore_is_asked_again(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    aws.script("ModifyDBInstance", "InvalidDBInstanceState", "InvalidDBInstanceStateFault", rds.modify)
    assert run(aws, waiting)["action"] == "restore"


def test_a_change_that_stays_pending_is_named_when_time_is_up(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    aws.script("ModifyDBInstance", lambda asked: {"DBInstance": dict(rds.instances["shop-side"])})
    said = refused(aws, waiting)
    assert "preferred_maintenance_window" in said
    assert "wait_timeout" in said


def test_what_cannot_be_inherited_is_told(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.instances["shop"].update(
        MasterUserSecret={"SecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-1"},
        ReadReplicaDBInstanceIdentifiers=["shop-replica"],
        DBInstanceAutomatedBackupsReplications=[{"DBInstanceAutomatedBackupsArn": "arn:x"}],
    )
    told = {left["name"]: left["reason"] for left in run(aws, waiting)["not_inherited"]}
    assert "master_user_password" in told["manage_master_user_password"]
    assert "replicas" in told["read_replicas"]
    assert "rds_backup_replication" in told["backup_replication"]


# Check mode


def test_check_mode_returns_the_request_and_asks_nothing_of_aws_that_changes(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    Rds(aws)
    result = run(aws, waiting, check_mode=True)
    assert aws.written() == []
    assert result["changed"] is True
    assert result["request"]["call"] == "restore_db_instance_to_point_in_time"
    assert result["request"]["arguments"]["RestoreTime"] == AT
    assert result["request"]["arguments"]["MultiAZ"] is True
    assert "monitoring_interval" in result["request"]["modified_after"]
    assert result["windows"][0]["latest"] == "2026-11-25T03:20:00+00:00"


def test_check_mode_of_a_restore_that_goes_on_or_is_done(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    run(aws, waiting)
    assert run(aws, waiting, check_mode=True)["changed"] is False
    assert run(aws, waiting, check_mode=True, deletion_protection=False)["changed"] is True
    for tag in rds.instances["shop-side"]["TagList"]:
        if tag["Key"] == "dbre:restore-state":
            tag["Value"] = "running"
    assert run(aws, waiting, check_mode=True)["action"] == "continue"


def test_a_missing_source_is_an_error_in_check_mode_too(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = []
    said = refused(aws, waiting, check_mode=True)
    assert "there is no instance shop in eu-central-1" in said
    assert "rds_recovery_window_info" in said


# Refusals before anything is changed


@pytest.mark.parametrize("at", ["2026-11-25T03:20:01+00:00", "2026-11-18T03:59:59+00:00"])
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_moment_outside_the_window_prints_the_window_and_the_nearest_moment(
    aws: ScriptedAws, waiting: Waiting, at: str, check_mode: bool
) -> None:
    Rds(aws)
    with pytest.raises(RecoveryError) as caught:
        run(aws, waiting, check_mode=check_mode, at=at)
    assert "2026-11-18T04:00:00+00:00 to 2026-11-25T03:20:00+00:00" in caught.value.msg
    nearest = "2026-11-25T03:20:00+00:00" if at > AT else "2026-11-18T04:00:00+00:00"
    assert f"nearest moment that can be is {nearest}" in caught.value.msg
    assert caught.value.details["nearest"] == nearest
    assert aws.written() == []


def test_a_name_that_is_taken_is_refused_and_left_alone(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.instances["shop-side"] = {**SOURCE, "DBInstanceIdentifier": "shop-side", "DbiResourceId": "db-X", "TagList": []}
    said = refused(aws, waiting)
    assert "shop-side exists" in said
    assert "name is taken" in said
    assert aws.written() == []


@pytest.mark.parametrize(
    "another",
    [
        {"at": "2026-11-25T03:11:58+00:00"},
        {"at": None, "latest": True},
        {"source_db_instance_identifier": "other"},
        {"source_db_instance_identifier": None, "source_dbi_resource_id": "db-OTHER"},
        {"source_db_instance_identifier": None, "at": None, "db_snapshot_identifier": "shop-before"},
        {"incident": "incident-8"},
    ],
)
def test_another_moment_source_or_incident_onto_the_same_copy_is_an_error_not_a_change(
    aws: ScriptedAws, waiting: Waiting, another: dict[str, Any]
) -> None:
    rds = Rds(aws)
    rds.instances["other"] = {**SOURCE, "DBInstanceIdentifier": "other", "DbiResourceId": "db-OTHER"}
    run(aws, waiting)
    aws.calls.clear()
    said = refused(aws, waiting, **another)
    assert "was restored from shop (db-SHOP) to 2026-11-25T03:11:59+00:00" in said
    assert aws.written() == []


def test_a_copy_whose_sources_name_was_given_to_another_database_is_not_taken_for_a_copy_of_that(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    run(aws, waiting)
    rds.instances["shop"]["DbiResourceId"] = "db-NEW"
    assert "was restored from shop (db-SHOP)" in refused(aws, waiting)


def test_a_copy_that_is_being_deleted_is_not_waited_for(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    run(aws, waiting)
    rds.statuses = ["deleting"] * 9
    assert "is being deleted" in refused(aws, waiting)


@pytest.mark.parametrize("option", ["performance_insights_kms_key_id", "kms_key_id"])
def test_a_key_of_the_wrong_region_is_refused_before_any_call(aws: ScriptedAws, waiting: Waiting, option: str) -> None:
    said = refused(aws, waiting, **{option: "arn:aws:kms:us-east-1:123456789012:key/1"})
    assert "is a key of us-east-1, and the copy is made in eu-central-1" in said
    assert aws.calls == []


def test_a_setting_of_clusters_is_refused_for_an_instance(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    said = refused(aws, waiting, kms_key_id="arn:aws:kms:eu-central-1:123456789012:key/1", engine_mode="provisioned")
    assert "engine_mode, kms_key_id: no setting of a DB instance" in said
    assert "members" in refused(aws, waiting, members=[{}])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"at": None}, "give either at"),
        ({"latest": True}, "give either at"),
        ({"at": "2026-11-25T03:11:59"}, "has no UTC offset"),
        ({"at": "yesterday"}, "is no time"),
        ({"db_instance_identifier": "-side"}, "is no identifier of RDS"),
        ({"db_instance_identifier": None, "db_cluster_identifier": "side"}, "give db_instance_identifier"),
        ({"source_db_instance_identifier": None}, "say what to restore from"),
        ({"source_dbi_resource_id": "db-1"}, "Given are"),
        ({"source_db_instance_identifier": None, "db_snapshot_identifier": "s"}, "leave out at and latest"),
    ],
)
def test_bad_input_is_refused_before_any_call(
    aws: ScriptedAws, waiting: Waiting, params: dict[str, Any], said: str
) -> None:
    assert said in refused(aws, waiting, **params)
    assert aws.calls == []


def test_a_source_without_automated_backups_says_so(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.backups = []
    rds.instances["shop"].update(BackupRetentionPeriod=0, LatestRestorableTime=None)
    del rds.instances["shop"]["LatestRestorableTime"]
    said = refused(aws, waiting)
    assert "automated backups are switched off" in said
    assert "db_snapshot_identifier" in said


def test_a_member_of_a_cluster_is_restored_with_its_cluster_only(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.instances["shop"]["DBClusterIdentifier"] = "orders"
    assert "source_db_cluster_identifier: orders" in refused(aws, waiting)


# What AWS may say


@pytest.mark.parametrize("status", sorted(STUCK))
def test_a_status_that_leads_nowhere_ends_the_wait_with_its_meaning(
    aws: ScriptedAws, waiting: Waiting, status: str
) -> None:
    Rds(aws, ("creating", "backing-up", status))
    with pytest.raises(RecoveryError) as caught:
        run(aws, waiting)
    assert STUCK[status] in caught.value.msg
    assert "describe-events" in caught.value.msg
    assert caught.value.details["status"] == status


def test_a_copy_that_never_becomes_available_ends_the_wait_with_its_status(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws, ("creating",) * 5000)
    said = refused(aws, waiting)
    assert "not done after 3600 s; its status is 'creating'" in said
    assert "source of shop-side is untouched" in said


@pytest.mark.parametrize(
    "code",
    [
        "InstanceQuotaExceeded",
        "StorageQuotaExceeded",
        "KMSKeyNotAccessibleFault",
        "InvalidRestoreFault",
        "InsufficientDBInstanceCapacity",
        "DBParameterGroupNotFound",
        "OptionGroupNotFoundFault",
        "DBSubnetGroupNotFoundFault",
        "StorageTypeNotSupported",
        "PointInTimeRestoreNotEnabled",
        "InvalidVPCNetworkStateFault",
        "AccessDenied",
    ],
)
def test_an_error_of_the_restore_call_reaches_the_caller_with_a_code_that_is_explained(
    aws: ScriptedAws, waiting: Waiting, code: str
) -> None:
    Rds(aws)
    aws.script("RestoreDBInstanceToPointInTime", code)
    with pytest.raises(ClientError) as caught:
        run(aws, waiting)
    assert error_code(caught.value) == code
    assert "known here" not in str(explain(code))


def test_somebody_elses_instance_that_appears_meanwhile_is_not_taken_for_the_copy(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)

    def another(_asked: dict[str, Any]) -> str:
        rds.instances["shop-side"] = {**SOURCE, "DBInstanceIdentifier": "shop-side", "DbiResourceId": "db-X"}
        return "DBInstanceAlreadyExists"

    aws.script("RestoreDBInstanceToPointInTime", another)
    assert "the name is taken" in refused(aws, waiting)


# Snapshots

SNAPSHOT: dict[str, Any] = {
    "DBSnapshotIdentifier": "shop-before",
    "DBSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before",
    "DBInstanceIdentifier": "shop",
    "DbiResourceId": "db-SHOP",
    "Engine": "postgres",
    "Status": "available",
    "SnapshotCreateTime": LATEST,
    "StorageType": "gp3",
    "AllocatedStorage": 20,
    "Port": 5432,
}
FROM_SNAPSHOT = {"source_db_instance_identifier": None, "at": None, "db_snapshot_identifier": "shop-before"}


def test_a_snapshot_that_is_being_made_is_waited_for(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    creating = {"DBSnapshots": [{**SNAPSHOT, "Status": "creating", "PercentProgress": 40}]}
    aws.script("DescribeDBSnapshots", creating, creating, creating, {"DBSnapshots": [SNAPSHOT]})
    result = run(aws, waiting, **FROM_SNAPSHOT)
    (restored,) = aws.called("RestoreDBInstanceFromDBSnapshot")
    assert (restored["DBSnapshotIdentifier"], restored["DBInstanceIdentifier"]) == ("shop-before", "shop-side")
    assert restored["VpcSecurityGroupIds"] == ["sg-1"]
    assert result["restored_to"] == "2026-11-25T03:20:00+00:00"
    assert tags_of(rds)["dbre:restored-from"] == f"shop {SNAPSHOT['DBSnapshotArn']}"
    assert result["seconds"]["snapshot"] > 0
    assert run(aws, waiting, **FROM_SNAPSHOT)["changed"] is False
    assert (
        run(aws, waiting, **{**FROM_SNAPSHOT, "db_snapshot_identifier": SNAPSHOT["DBSnapshotArn"]})["changed"] is False
    )


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_snapshot_that_has_failed_is_an_error(aws: ScriptedAws, waiting: Waiting, check_mode: bool) -> None:
    Rds(aws)
    aws.script("DescribeDBSnapshots", {"DBSnapshots": [{**SNAPSHOT, "Status": "failed"}]})
    assert "has failed" in refused(aws, waiting, check_mode=check_mode, **FROM_SNAPSHOT)
    assert aws.written() == []


def test_a_snapshot_that_fails_while_it_is_waited_for_is_an_error(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    answers = [{"DBSnapshots": [{**SNAPSHOT, "Status": status}]} for status in ("creating", "creating", "failed")]
    aws.script("DescribeDBSnapshots", *answers)
    assert "has failed" in refused(aws, waiting, **FROM_SNAPSHOT)
    assert aws.written() == []


def test_a_snapshot_that_is_not_there_or_in_another_region_is_an_error(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    aws.script("DescribeDBSnapshots", "DBSnapshotNotFound")
    assert "there is no snapshot shop-before in eu-central-1" in refused(aws, waiting, **FROM_SNAPSHOT)
    arn = SNAPSHOT["DBSnapshotArn"].replace("eu-central-1", "us-east-1")
    said = refused(aws, waiting, **{**FROM_SNAPSHOT, "db_snapshot_identifier": arn})
    assert "rds_snapshot_copy" in said


# Sources that are gone, or in another region

RETAINED = {**BACKUP, "Status": "retained", "StorageType": "gp3", "AllocatedStorage": 20, "Port": 5433}


def test_an_instance_that_is_gone_is_restored_from_its_retained_backups(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = [RETAINED]
    result = run(aws, waiting, db_instance_class="db.r6g.large")
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["SourceDbiResourceId"] == "db-SHOP"
    assert "SourceDBInstanceIdentifier" not in restored
    assert restored["Port"] == 5433
    told = {left["name"]: left["reason"] for left in result["not_inherited"]}
    assert "shop is gone from eu-central-1" in told["vpc_security_group_ids"]
    assert "source_settings" in told["multi_az"]
    assert "db_instance_class" not in told


def test_stored_settings_stand_in_for_a_source_that_is_gone(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = [RETAINED]
    stored = {**SOURCE, "LatestRestorableTime": "2026-11-25T03:20:00+00:00"}
    result = run(aws, waiting, source_settings=stored)
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["VpcSecurityGroupIds"] == ["sg-1"]
    assert result["not_inherited"] == []
    assert "source_settings are those of 'other'" in refused(
        aws, waiting, db_instance_identifier="again", source_settings={**stored, "DBInstanceIdentifier": "other"}
    )


def test_backups_of_two_instances_of_one_name_are_told_apart_by_the_moment_or_the_caller(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    del rds.instances["shop"]
    older = {**RETAINED, "DbiResourceId": "db-OLD"}
    rds.backups = [RETAINED, older]
    said = refused(aws, waiting)
    assert "db-SHOP" in said
    assert "db-OLD" in said
    assert "source_dbi_resource_id" in said
    older["RestoreWindow"] = {"EarliestTime": EARLIEST, "LatestTime": EARLIEST}
    run(aws, waiting)
    assert aws.called("RestoreDBInstanceToPointInTime")[0]["SourceDbiResourceId"] == "db-SHOP"


REPLICATED = {**BACKUP, "DBInstanceAutomatedBackupsArn": "arn:aws:rds:eu-west-1:123456789012:auto-backup:ab-2"}
LOST = {"source_region": "eu-central-1", "db_subnet_group_name": "dr", "vpc_security_group_ids": ["sg-9"]}


def test_a_lost_region_is_restored_elsewhere_from_replicated_backups(
    another_region: Callable[[str], ScriptedAws], waiting: Waiting
) -> None:
    aws, lost = another_region("eu-west-1"), another_region("eu-central-1")
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = [REPLICATED]
    lost.script("DescribeDBInstances", EndpointConnectionError(endpoint_url="https://rds.eu-central-1.amazonaws.com"))
    result = run(
        aws, waiting, regions=lambda region: lost.rds(), source_settings=SOURCE, db_instance_identifier="shop", **LOST
    )
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["SourceDBInstanceAutomatedBackupsArn"] == REPLICATED["DBInstanceAutomatedBackupsArn"]
    assert restored["MultiAZ"] is True
    assert restored["DBSubnetGroupName"] == "dr"
    assert "DBParameterGroupName" not in restored
    told = {left["name"]: left["reason"] for left in result["not_inherited"]}
    assert told == {
        "db_parameter_group_name": ("shop-17 exists in eu-central-1 only: give db_parameter_group_name of this region")
    }


def test_a_lost_region_without_stored_settings_is_restored_with_what_is_given(
    another_region: Callable[[str], ScriptedAws], waiting: Waiting
) -> None:
    aws, lost = another_region("eu-west-1"), another_region("eu-central-1")
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = [REPLICATED]
    lost.script("DescribeDBInstances", "ServiceUnavailable")
    result = run(aws, waiting, regions=lambda region: lost.rds(), **LOST)
    told = {left["name"]: left["reason"] for left in result["not_inherited"]}
    assert "eu-central-1 cannot be asked" in told["multi_az"]
    assert "db_subnet_group_name" not in told


def test_settings_are_read_in_the_sources_region_and_those_of_that_region_only_are_left_out(
    another_region: Callable[[str], ScriptedAws], waiting: Waiting
) -> None:
    aws, home = another_region("eu-west-1"), another_region("eu-central-1")
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = [REPLICATED]
    source = {
        **SOURCE,
        "DBParameterGroups": [{"DBParameterGroupName": "default.postgres17", "ParameterApplyStatus": "in-sync"}],
        "PerformanceInsightsEnabled": False,
    }
    home.script("DescribeDBInstances", {"DBInstances": [source]})
    result = run(
        aws,
        waiting,
        regions=lambda region: home.rds(),
        source_db_instance_identifier=None,
        source_db_instance_automated_backups_arn=REPLICATED["DBInstanceAutomatedBackupsArn"],
    )
    (restored,) = aws.called("RestoreDBInstanceToPointInTime")
    assert restored["DBParameterGroupName"] == "default.postgres17"
    assert {left["name"] for left in result["not_inherited"]} == {"vpc_security_group_ids", "db_subnet_group_name"}
    assert (
        run(
            aws,
            waiting,
            regions=lambda region: home.rds(),
            source_db_instance_identifier=None,
            source_db_instance_automated_backups_arn=REPLICATED["DBInstanceAutomatedBackupsArn"],
        )["changed"]
        is False
    )


def test_backups_that_were_never_replicated_are_an_error_that_names_the_way(
    another_region: Callable[[str], ScriptedAws], waiting: Waiting
) -> None:
    aws = another_region("eu-west-1")
    rds = Rds(aws)
    del rds.instances["shop"]
    rds.backups = []
    said = refused(aws, waiting, **LOST)
    assert "replicated from eu-central-1" in said
    assert "rds_backup_replication" in said


def test_backups_of_another_region_are_not_restored_here(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    said = refused(
        aws,
        waiting,
        source_db_instance_identifier=None,
        source_db_instance_automated_backups_arn=REPLICATED["DBInstanceAutomatedBackupsArn"],
    )
    assert "is in eu-west-1, and the copy is made in eu-central-1" in said


def test_another_database_that_has_the_sources_name_by_now_lends_no_settings(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    aws.script("DescribeDBSnapshots", {"DBSnapshots": [{**SNAPSHOT, "DbiResourceId": "db-OLD"}]})
    result = run(aws, waiting, **FROM_SNAPSHOT)
    told = {left["name"]: left["reason"] for left in result["not_inherited"]}
    assert "is another database now (db-SHOP, not db-OLD)" in told["vpc_security_group_ids"]
    assert rds.instances["shop-side"]["VpcSecurityGroups"][0]["VpcSecurityGroupId"] == "sg-0"
