# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores of Aurora and Multi-AZ clusters: the cluster, then its members."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.restore import Asked, Restore
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

EARLIEST = datetime(2026, 11, 18, 4, 0, tzinfo=timezone.utc)
LATEST = datetime(2026, 11, 25, 3, 20, tzinfo=timezone.utc)
AT = "2026-11-25T03:11:59+00:00"
SOURCE: dict[str, Any] = {
    "DBClusterIdentifier": "orders",
    "DbClusterResourceId": "cluster-ORDERS",
    "DBClusterArn": "arn:aws:rds:eu-central-1:123456789012:cluster:orders",
    "Status": "available",
    "Engine": "aurora-postgresql",
    "EngineMode": "provisioned",
    "EngineVersion": "17.4",
    "DBClusterParameterGroup": "orders-17",
    "DBSubnetGroup": "private",
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0},
    "BackupRetentionPeriod": 14,
    "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
    "Port": 5432,
    "DeletionProtection": True,
    "EarliestRestorableTime": EARLIEST,
    "LatestRestorableTime": LATEST,
    "DBClusterMembers": [
        {"DBInstanceIdentifier": "orders-b", "IsClusterWriter": False, "PromotionTier": 1},
        {"DBInstanceIdentifier": "orders-a", "IsClusterWriter": True, "PromotionTier": 0},
    ],
    "AssociatedRoles": [
        {"RoleArn": "arn:aws:iam::123456789012:role/s3", "FeatureName": "s3Export", "Status": "ACTIVE"}
    ],
    "TagList": [{"Key": "team", "Value": "orders"}],
}


def member(name: str, zone: str, kind: str, tier: int) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": name,
        "DbiResourceId": f"db-{name.upper()}",
        "DBInstanceArn": f"arn:aws:rds:eu-central-1:123456789012:db:{name}",
        "DBInstanceStatus": "available",
        "DBClusterIdentifier": "orders",
        "Engine": "aurora-postgresql",
        "DBInstanceClass": kind,
        "AvailabilityZone": zone,
        "PromotionTier": tier,
        "DBParameterGroups": [{"DBParameterGroupName": "orders-member", "ParameterApplyStatus": "in-sync"}],
        "MonitoringInterval": 60,
        "MonitoringRoleArn": "arn:aws:iam::123456789012:role/monitoring",
        "PerformanceInsightsEnabled": True,
        "PerformanceInsightsKMSKeyId": "arn:aws:kms:eu-central-1:123456789012:key/pi",
        "Endpoint": {"Address": f"{name}.x", "Port": 5432},
        "TagList": [{"Key": "role", "Value": "member"}],
    }


PARAMS: dict[str, Any] = {
    "source_db_cluster_identifier": "orders",
    "db_cluster_identifier": "orders-side",
    "at": AT,
    "incident": "incident-7",
    "inherit": True,
}


class Rds:
    """An AWS with the cluster orders, an Aurora of two members."""

    def __init__(self, aws: ScriptedAws, **changes: Any) -> None:
        self.aws = aws
        self.clusters: dict[str, dict[str, Any]] = {"orders": {**SOURCE, **changes}}
        self.engine = self.clusters["orders"]["Engine"]
        self.instances = {
            "orders-a": member("orders-a", "eu-central-1a", "db.r6g.large", 0),
            "orders-b": member("orders-b", "eu-central-1b", "db.r6g.xlarge", 1),
        }
        self.statuses: list[str] = ["creating", "creating"]
        self.member_statuses: list[str] = ["creating", "configuring-enhanced-monitoring", "backing-up"]
        for operation, answer in (
            ("DescribeDBClusters", self.describe),
            ("DescribeDBInstances", self.describe_instances),
            ("DescribeDBClusterAutomatedBackups", {"DBClusterAutomatedBackups": []}),
            ("RestoreDBClusterToPointInTime", self.restore),
            ("RestoreDBClusterFromSnapshot", self.restore),
            ("ModifyDBCluster", self.modify),
            ("ModifyDBInstance", {"DBInstance": {}}),
            ("CreateDBInstance", self.create),
            ("AddTagsToResource", self.add_tags),
            ("AddRoleToDBCluster", self.add_role),
            ("RebootDBInstance", self.reboot),
        ):
            aws.script(operation, answer)

    def describe(self, asked: dict[str, Any]) -> Any:
        if "Filters" in asked:
            wanted = asked["Filters"][0]["Values"][0]
            found = [item for item in self.clusters.values() if item["DbClusterResourceId"] == wanted]
        else:
            found = [item for name, item in self.clusters.items() if name == asked["DBClusterIdentifier"]]
            if not found:
                return "DBClusterNotFoundFault"
        if found and found[0]["DBClusterIdentifier"] == "orders-side":
            found[0]["Status"] = self.statuses.pop(0) if self.statuses else "available"
        return {"DBClusters": [dict(item) for item in found]}

    def describe_instances(self, asked: dict[str, Any]) -> Any:
        if "Filters" in asked:
            wanted = asked["Filters"][0]["Values"][0]
            found = [item for item in self.instances.values() if item["DbiResourceId"] == wanted]
        else:
            found = [item for name, item in self.instances.items() if name == asked["DBInstanceIdentifier"]]
            if not found:
                return "DBInstanceNotFound"
        if found and found[0]["DBInstanceIdentifier"].startswith("orders-side"):
            found[0]["DBInstanceStatus"] = self.member_statuses.pop(0) if self.member_statuses else "available"
        return {"DBInstances": [dict(item) for item in found]}

    def restore(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["DBClusterIdentifier"]
        self.clusters[name] = {
            "DBClusterIdentifier": name,
            "DbClusterResourceId": "cluster-SIDE",
            "DBClusterArn": f"arn:aws:rds:eu-central-1:123456789012:cluster:{name}",
            "Status": "creating",
            "Engine": self.engine,
            "Endpoint": f"{name}.cluster-x",
            "Port": asked.get("Port", 5432),
            "TagList": asked.get("Tags", []),
            "DBClusterMembers": [],
            "DBClusterParameterGroup": asked.get("DBClusterParameterGroupName", "default.aurora-postgresql17"),
            "DBSubnetGroup": asked.get("DBSubnetGroupName", "default"),
            "VpcSecurityGroups": [
                {"VpcSecurityGroupId": group, "Status": "active"}
                for group in asked.get("VpcSecurityGroupIds", ["sg-0"])
            ],
            "DeletionProtection": asked.get("DeletionProtection", False),
            "BackupRetentionPeriod": asked.get("BackupRetentionPeriod", 1),
            "ServerlessV2ScalingConfiguration": asked.get("ServerlessV2ScalingConfiguration", {}),
            "PreferredMaintenanceWindow": "mon:01:00-mon:01:30",
            "AssociatedRoles": [{**role, "Status": "ACTIVE"} for role in asked.get("AssociatedRoles", [])],
            "StorageType": asked.get("StorageType", "aurora"),
        }
        if "DBClusterInstanceClass" in asked:
            self.clusters[name].update({key: asked[key] for key in ("DBClusterInstanceClass", "Iops")})
            self.clusters[name]["AllocatedStorage"] = 100
            for number in (1, 2, 3):
                own = f"{name}-instance-{number}"
                self.instances[own] = {**member(own, "eu-central-1a", "db.m6gd.large", 1), "DBClusterIdentifier": name}
                self.clusters[name]["DBClusterMembers"].append(
                    {"DBInstanceIdentifier": own, "IsClusterWriter": number == 1}
                )
        return {"DBCluster": dict(self.clusters[name])}

    def modify(self, asked: dict[str, Any]) -> dict[str, Any]:
        kept = (
            "PreferredMaintenanceWindow",
            "DeletionProtection",
            "BackupRetentionPeriod",
            "PerformanceInsightsKMSKeyId",
            "PerformanceInsightsRetentionPeriod",
        )
        side = self.clusters["orders-side"]
        side.update({key: asked[key] for key in kept if key in asked})
        side["PerformanceInsightsEnabled"] = asked.get("EnablePerformanceInsights", False)
        self.statuses = ["available", "modifying"]
        return {"DBCluster": {}}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["DBInstanceIdentifier"]
        self.instances[name] = {
            **member(name, asked.get("AvailabilityZone", "eu-central-1c"), asked["DBInstanceClass"], 0),
            "DBClusterIdentifier": asked["DBClusterIdentifier"],
            "PromotionTier": asked.get("PromotionTier", 1),
            "MonitoringInterval": asked.get("MonitoringInterval", 0),
            "PerformanceInsightsEnabled": asked.get("EnablePerformanceInsights", False),
            "TagList": asked["Tags"],
            "DBParameterGroups": [
                {
                    "DBParameterGroupName": asked.get("DBParameterGroupName", "default"),
                    "ParameterApplyStatus": "in-sync",
                }
            ],
        }
        members = self.clusters[asked["DBClusterIdentifier"]]["DBClusterMembers"]
        members.append(
            {
                "DBInstanceIdentifier": name,
                "IsClusterWriter": not members,
                "DBClusterParameterGroupStatus": "in-sync",
            }
        )
        return {"DBInstance": dict(self.instances[name])}

    def add_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = next(item for item in self.clusters.values() if item["DBClusterArn"] == asked["ResourceName"])
        keys = {tag["Key"] for tag in asked["Tags"]}
        found["TagList"] = [tag for tag in found["TagList"] if tag["Key"] not in keys] + asked["Tags"]
        return {}

    def add_role(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.clusters[asked["DBClusterIdentifier"]]["AssociatedRoles"].append(
            {"RoleArn": asked["RoleArn"], "FeatureName": asked.get("FeatureName", ""), "Status": "ACTIVE"}
        )
        return {}

    def reboot(self, asked: dict[str, Any]) -> dict[str, Any]:
        for entry in self.clusters["orders-side"]["DBClusterMembers"]:
            if entry["DBInstanceIdentifier"] == asked["DBInstanceIdentifier"]:
                entry["DBClusterParameterGroupStatus"] = "in-sync"
        return {"DBInstance": {}}


def no_region(region: str) -> Any:
    raise AssertionError(f"nobody was to look in {region}")


def run(aws: ScriptedAws, waiting: Waiting, check_mode: bool = False, **more: Any) -> Any:
    asked = pick(Asked, {**PARAMS, **more})
    overrides = {option: value for option, value in more.items() if not hasattr(asked, option)}
    return Restore(dataclasses.replace(asked, overrides=overrides), aws.rds(), no_region, waiting, check_mode).run()


def refused(aws: ScriptedAws, waiting: Waiting, **more: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        run(aws, waiting, **more)
    return caught.value.msg


def test_an_aurora_cluster_gets_its_settings_and_members_like_the_sources(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    result = run(aws, waiting)
    (restored,) = aws.called("RestoreDBClusterToPointInTime")
    assert restored["RestoreToTime"] == datetime(2026, 11, 25, 3, 11, 59, tzinfo=timezone.utc)
    assert restored["DBClusterParameterGroupName"] == "orders-17"
    assert restored["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 8.0}
    assert restored["VpcSecurityGroupIds"] == ["sg-1"]
    assert restored["EngineMode"] == "provisioned"
    (modified,) = aws.called("ModifyDBCluster")
    assert modified["PreferredMaintenanceWindow"] == "sun:05:00-sun:05:30"
    first, second = aws.called("CreateDBInstance")
    assert (first["DBInstanceIdentifier"], first["DBInstanceClass"]) == ("orders-side-1", "db.r6g.large")
    assert (first["AvailabilityZone"], first["PromotionTier"]) == ("eu-central-1a", 0)
    assert (second["DBInstanceIdentifier"], second["DBInstanceClass"]) == ("orders-side-2", "db.r6g.xlarge")
    assert (second["AvailabilityZone"], second["PromotionTier"]) == ("eu-central-1b", 1)
    for made in (first, second):
        assert made["Engine"] == "aurora-postgresql"
        assert made["DBClusterIdentifier"] == "orders-side"
        assert made["DBParameterGroupName"] == "orders-member"
        assert made["MonitoringInterval"] == 60
        assert made["MonitoringRoleArn"] == "arn:aws:iam::123456789012:role/monitoring"
        assert made["EnablePerformanceInsights"] is True
        assert {"Key": "role", "Value": "member"} in made["Tags"]
    assert [found["DBInstanceIdentifier"] for found in result["members"]] == ["orders-side-1", "orders-side-2"]
    assert all(found["DBInstanceStatus"] == "available" for found in result["members"])
    assert (result["endpoint"], result["port"]) == ("orders-side.cluster-x", 5432)
    assert {"Key": "dbre:restore-state", "Value": "done"} in rds.clusters["orders-side"]["TagList"]
    aws.calls.clear()
    assert run(aws, waiting)["changed"] is False
    assert aws.written() == []


def test_roles_go_with_the_restore_call_or_are_added_after_it(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)

    def without_roles(asked: dict[str, Any]) -> dict[str, Any]:
        return rds.restore({key: value for key, value in asked.items() if key != "AssociatedRoles"})

    aws.script("RestoreDBClusterToPointInTime", without_roles)
    run(aws, waiting)
    (added,) = aws.called("AddRoleToDBCluster")
    assert added == {
        "DBClusterIdentifier": "orders-side",
        "RoleArn": "arn:aws:iam::123456789012:role/s3",
        "FeatureName": "s3Export",
    }


@pytest.mark.parametrize("lost", [1, 2])
def test_a_restore_that_was_killed_among_the_members_makes_only_the_missing_ones(
    aws: ScriptedAws, waiting: Waiting, lost: int
) -> None:
    def killed(_asked: dict[str, Any]) -> Any:
        raise KeyboardInterrupt

    rds = Rds(aws)
    aws.script("CreateDBInstance", *[rds.create] * (lost - 1), killed)
    with pytest.raises(KeyboardInterrupt):
        run(aws, waiting)
    aws.script("CreateDBInstance", rds.create)
    aws.calls.clear()
    result = run(aws, waiting)
    assert result["action"] == "continue"
    assert [made["DBInstanceIdentifier"] for made in aws.called("CreateDBInstance")] == [
        f"orders-side-{number}" for number in range(lost, 3)
    ]
    assert aws.called("RestoreDBClusterToPointInTime") == []


def test_members_can_be_fewer_smaller_and_named(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    run(
        aws,
        waiting,
        monitoring_interval=0,
        members=[
            {"db_instance_identifier": "orders-side-only", "db_instance_class": "db.t4g.medium", "promotion_tier": 0}
        ],
    )
    (made,) = aws.called("CreateDBInstance")
    assert made["DBInstanceIdentifier"] == "orders-side-only"
    assert made["DBInstanceClass"] == "db.t4g.medium"
    assert made["PromotionTier"] == 0
    assert made["MonitoringInterval"] == 0
    assert "MonitoringRoleArn" not in made
    assert made["DBParameterGroupName"] == "orders-member"


def test_more_members_than_the_source_has_are_like_its_last_one_in_a_zone_that_aws_chooses(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    Rds(aws)
    run(aws, waiting, members=[{}, {}, {}])
    third = aws.called("CreateDBInstance")[2]
    assert third["DBInstanceClass"] == "db.r6g.xlarge"
    assert "AvailabilityZone" not in third


def test_an_empty_list_of_members_makes_none(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    assert run(aws, waiting, members=[])["members"] == []
    assert aws.called("CreateDBInstance") == []


def test_a_cluster_parameter_group_that_waits_for_a_reboot_gets_its_members_rebooted(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)

    def pending(asked: dict[str, Any]) -> dict[str, Any]:
        answer = rds.create(asked)
        rds.clusters["orders-side"]["DBClusterMembers"][-1]["DBClusterParameterGroupStatus"] = "pending-reboot"
        return answer

    aws.script("CreateDBInstance", pending)
    run(aws, waiting)
    assert [asked["DBInstanceIdentifier"] for asked in aws.called("RebootDBInstance")] == [
        "orders-side-1",
        "orders-side-2",
    ]


def test_a_member_name_that_is_taken_is_refused_before_anything_is_made(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.instances["orders-side-2"] = member("orders-side-2", "eu-central-1a", "db.r6g.large", 1)
    assert "DB instance orders-side-2 exists" in refused(aws, waiting)
    assert aws.written() == []


def test_a_multi_az_cluster_gets_its_members_from_aws_and_they_are_waited_for(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    Rds(
        aws,
        Engine="postgres",
        DBClusterInstanceClass="db.m6gd.large",
        AllocatedStorage=100,
        Iops=3000,
        StorageType="io1",
    )
    result = run(aws, waiting)
    (restored,) = aws.called("RestoreDBClusterToPointInTime")
    assert restored["DBClusterInstanceClass"] == "db.m6gd.large"
    assert aws.called("CreateDBInstance") == []
    assert len(result["members"]) == 3
    assert {found["DBInstanceStatus"] for found in result["members"]} == {"available"}


def test_a_clone_is_of_the_present_and_of_aurora_only(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    assert "is of the present only" in refused(aws, waiting, restore_type="copy-on-write")
    run(aws, waiting, restore_type="copy-on-write", at=None, latest=True)
    (restored,) = aws.called("RestoreDBClusterToPointInTime")
    assert (restored["RestoreType"], restored["UseLatestRestorableTime"]) == ("copy-on-write", True)
    Rds(aws, Engine="postgres")
    assert "only Aurora clones" in refused(aws, waiting, restore_type="copy-on-write", at=None, latest=True)


@pytest.mark.parametrize(
    ("engine", "said"), [("aurora-postgresql", "exists for Aurora MySQL only"), ("aurora-mysql", "in place")]
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_backtracking_is_refused_with_the_reason_and_the_way(
    aws: ScriptedAws, waiting: Waiting, engine: str, said: str, check_mode: bool
) -> None:
    Rds(aws, Engine=engine)
    told = refused(aws, waiting, restore_type="backtrack", check_mode=check_mode)
    assert said in told
    assert "leave restore_type out" in told
    assert aws.written() == []


@pytest.mark.parametrize("overrides", [{}, {"enable_performance_insights": True}])
def test_insights_of_an_aurora_cluster_are_switched_on_after_the_restore_which_would_be_refused_with_them(
    aws: ScriptedAws, waiting: Waiting, overrides: dict[str, Any]
) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/pi"
    Rds(
        aws,
        PerformanceInsightsEnabled=not overrides,
        PerformanceInsightsKMSKeyId=key,
        PerformanceInsightsRetentionPeriod=31,
    )
    run(aws, waiting, **overrides)
    (restored,) = aws.called("RestoreDBClusterToPointInTime")
    assert not [name for name in restored if "Insights" in name]
    (modified,) = aws.called("ModifyDBCluster")
    assert modified["EnablePerformanceInsights"] is True
    assert (modified["PerformanceInsightsKMSKeyId"], modified["PerformanceInsightsRetentionPeriod"]) == (key, 31)


def test_a_moment_outside_a_clusters_window_prints_the_window(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    said = refused(aws, waiting, at="2026-11-25T03:30:00+00:00")
    assert "2026-11-18T04:00:00+00:00 to 2026-11-25T03:20:00+00:00" in said
    assert aws.written() == []


def test_a_cluster_that_is_gone_is_restored_from_retained_backups_with_the_members_that_are_given(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    backup = {
        "DBClusterIdentifier": "orders",
        "DbClusterResourceId": "cluster-ORDERS",
        "DBClusterArn": SOURCE["DBClusterArn"],
        "Status": "retained",
        "Engine": "aurora-postgresql",
        "RestoreWindow": {"EarliestTime": EARLIEST, "LatestTime": LATEST},
    }
    del rds.clusters["orders"]

    def backups(asked: dict[str, Any]) -> dict[str, Any]:
        # "Must match the identifier of an existing DB cluster" (API reference), and this one is gone.
        another = {**backup, "DBClusterIdentifier": "orders-2", "DbClusterResourceId": "cluster-2"}
        return {"DBClusterAutomatedBackups": [] if "DBClusterIdentifier" in asked else [another, backup]}

    aws.script("DescribeDBClusterAutomatedBackups", backups)
    assert "Give members" in refused(aws, waiting)
    assert "class of member" in refused(aws, waiting, members=[{}])
    run(aws, waiting, members=[{"db_instance_class": "db.r6g.large"}])
    (restored,) = aws.called("RestoreDBClusterToPointInTime")
    assert restored["SourceDbClusterResourceId"] == "cluster-ORDERS"
    (made,) = aws.called("CreateDBInstance")
    assert (made["DBInstanceClass"], made["Engine"]) == ("db.r6g.large", "aurora-postgresql")


def test_stored_settings_bring_the_members_of_a_cluster_that_is_gone(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    stored = {**SOURCE, "Members": [rds.instances["orders-a"], rds.instances["orders-b"]]}
    snapshot = {
        "DBClusterSnapshotIdentifier": "orders-before",
        "DBClusterSnapshotArn": "arn:aws:rds:eu-central-1:123456789012:cluster-snapshot:orders-before",
        "DBClusterIdentifier": "orders",
        "DbClusterResourceId": "cluster-OLD",
        "Engine": "aurora-postgresql",
        "EngineVersion": "16.8",
        "Status": "available",
        "SnapshotCreateTime": LATEST,
    }
    aws.script("DescribeDBClusterSnapshots", {"DBClusterSnapshots": [snapshot]})
    asked = {"source_db_cluster_identifier": None, "at": None, "db_cluster_snapshot_identifier": "orders-before"}
    run(aws, waiting, source_settings=stored, **asked)
    (restored,) = aws.called("RestoreDBClusterFromSnapshot")
    assert (restored["SnapshotIdentifier"], restored["Engine"]) == ("orders-before", "aurora-postgresql")
    assert restored["EngineVersion"] == "16.8"
    assert restored["DBClusterParameterGroupName"] == "orders-17"
    assert len(aws.called("CreateDBInstance")) == 2


def test_what_makes_no_sense_for_a_cluster_is_refused(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    assert "at least 1" in refused(aws, waiting, backup_retention_period=0)
    assert "multi_az: no setting" in refused(aws, waiting, multi_az=True)
    assert "own region only" in refused(aws, waiting, source_region="eu-west-1")
    assert "give db_cluster_identifier" in refused(aws, waiting, db_cluster_identifier=None, db_instance_identifier="x")
    assert aws.written() == []


@pytest.mark.parametrize(
    "status", ["cloning-failed", "inaccessible-encryption-credentials", "migration-failed", "failed"]
)
def test_a_status_of_a_cluster_that_leads_nowhere_ends_the_wait(
    aws: ScriptedAws, waiting: Waiting, status: str
) -> None:
    rds = Rds(aws)
    rds.statuses = ["creating", status]
    assert f"status '{status}'" in refused(aws, waiting)


def test_a_member_that_cannot_be_made_ends_the_wait(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.member_statuses = ["creating", "insufficient-capacity"]
    assert "no such instance class free" in refused(aws, waiting)
