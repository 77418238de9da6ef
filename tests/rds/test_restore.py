# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module rds_restore on what the playbooks' tests do not have: an Aurora cluster, and every setting at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from cloud import CREDENTIALS, HOME

from conftest import EmulatedRds, wait  # isort: skip


def module(emulated_rds: EmulatedRds, name: str, *words: str, **options: Any) -> dict[str, Any]:
    """The result of one run of a module of ours, which must not fail."""
    given = {"region": HOME, "endpoint_url": emulated_rds.url, **options}
    return ansible(["ansible", "localhost", "-m", f"dbre.recovery.{name}", "-a", json.dumps(given), *words])


def ansible(command: list[str]) -> dict[str, Any]:
    """The result of a module that a command runs, which must not fail."""
    done = subprocess.run(
        command,
        env={
            **os.environ,
            **CREDENTIALS,
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.partition(" => ")[2])
    return found


def test_an_aurora_cluster_comes_back_with_members_settings_and_rows(emulated_rds: EmulatedRds) -> None:
    rds = emulated_rds.client()
    rds.create_db_cluster(
        DBClusterIdentifier="sales",
        Engine="aurora-postgresql",
        MasterUsername="boss",
        MasterUserPassword="correct-horse-battery",
        DatabaseName="shop",
        BackupRetentionPeriod=3,
        PreferredMaintenanceWindow="sun:05:00-sun:05:30",
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 4},
    )

    def cluster(name: str) -> dict[str, Any]:
        found: dict[str, Any] = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]
        return found

    wait(lambda: cluster("sales")["Status"] == "available")
    for zone, kind in (("a", "db.r6g.large"), ("b", "db.r6g.xlarge")):
        rds.create_db_instance(
            DBInstanceIdentifier=f"sales-{zone}",
            DBClusterIdentifier="sales",
            Engine="aurora-postgresql",
            DBInstanceClass=kind,
            MonitoringInterval=60,
            MonitoringRoleArn="arn:aws:iam::123456789012:role/monitoring",
        )
    for zone in "ab":
        emulated_rds.available(f"sales-{zone}")
    place = {"Endpoint": {"Address": cluster("sales")["Endpoint"], "Port": 5432}}
    emulated_rds.sql(place, "CREATE TABLE orders AS SELECT generate_series(1, 100) AS id")
    written = datetime.now(timezone.utc)
    wait(lambda: cluster("sales")["LatestRestorableTime"] >= written)
    shown = module(emulated_rds, "rds_recovery_window_info", db_cluster_identifier="sales")["windows"][0]["latest"]
    assert datetime.fromisoformat(shown.replace("Z", "+00:00")) >= written

    asked = {
        "source_db_cluster_identifier": "sales",
        "db_cluster_identifier": "sales-side",
        "latest": True,
        "incident": "i1",
    }
    restored = module(emulated_rds, "rds_restore", **asked)
    assert restored["action"] == "restore"
    assert [member["db_instance_class"] for member in restored["members"]] == ["db.r6g.large", "db.r6g.xlarge"]
    assert {member["monitoring_interval"] for member in restored["members"]} == {60}
    assert restored["cluster"]["preferred_maintenance_window"] == "sun:05:00-sun:05:30"
    assert restored["cluster"]["serverless_v2_scaling_configuration"]["max_capacity"] == 4
    side = {"Endpoint": {"Address": restored["endpoint"], "Port": restored["port"]}}
    assert emulated_rds.sql(side, "SELECT count(*) FROM orders") == 100
    assert module(emulated_rds, "rds_restore", **asked)["changed"] is False

    gone = {"db_cluster_identifier": "sales-side", "incident": "i1", "state": "absent"}
    assert module(emulated_rds, "rds_restore", **gone, final_snapshot_identifier="sales-last")["changed"] is True
    assert module(emulated_rds, "rds_restore", **gone)["changed"] is False
    again = module(
        emulated_rds,
        "rds_restore",
        db_cluster_snapshot_identifier="sales-last",
        db_cluster_identifier="sales-again",
        incident="i1",
        members=[{"db_instance_class": "db.t4g.medium"}],
    )
    side = {"Endpoint": {"Address": again["endpoint"], "Port": again["port"]}}
    assert emulated_rds.sql(side, "SELECT count(*) FROM orders") == 100
    assert "sales-side is gone" in again["not_inherited"][0]["reason"]


def test_an_instance_comes_back_with_every_setting_or_without_and_is_told_beside(emulated_rds: EmulatedRds) -> None:
    rds, ec2 = emulated_rds.client(), emulated_rds.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="ledger", Description="ledger", VpcId=vpc)["GroupId"]
    source = emulated_rds.create(
        "ledger",
        MultiAZ=True,
        VpcSecurityGroupIds=[group],
        DeletionProtection=True,
        MonitoringInterval=30,
        MonitoringRoleArn="arn:aws:iam::123456789012:role/monitoring",
        EnablePerformanceInsights=True,
        PreferredMaintenanceWindow="sun:05:00-sun:05:30",
        PreferredBackupWindow="03:00-03:30",
        EnableCloudwatchLogsExports=["postgresql"],
        EnableIAMDatabaseAuthentication=True,
        CopyTagsToSnapshot=True,
        MaxAllocatedStorage=100,
        AutoMinorVersionUpgrade=False,
        Tags=[{"Key": "team", "Value": "ledger"}],
    )
    rds.add_role_to_db_instance(
        DBInstanceIdentifier="ledger", RoleArn="arn:aws:iam::123456789012:role/s3", FeatureName="s3Import"
    )
    wait(lambda: emulated_rds.instance("ledger").get("LatestRestorableTime"))
    source = emulated_rds.available("ledger")
    asked = {"source_db_instance_identifier": "ledger", "latest": True, "incident": "i2"}
    module(emulated_rds, "rds_restore", db_instance_identifier="ledger-same", **asked)
    same = emulated_rds.instance("ledger-same")
    for key in (
        "MultiAZ",
        "VpcSecurityGroups",
        "DBParameterGroups",
        "OptionGroupMemberships",
        "DBSubnetGroup",
        "DeletionProtection",
        "MonitoringInterval",
        "MonitoringRoleArn",
        "PerformanceInsightsEnabled",
        "PerformanceInsightsRetentionPeriod",
        "PreferredMaintenanceWindow",
        "PreferredBackupWindow",
        "BackupRetentionPeriod",
        "EnabledCloudwatchLogsExports",
        "IAMDatabaseAuthenticationEnabled",
        "CopyTagsToSnapshot",
        "MaxAllocatedStorage",
        "AutoMinorVersionUpgrade",
        "AssociatedRoles",
    ):
        assert same[key] == source[key], key
    assert {"Key": "team", "Value": "ledger"} in same["TagList"]

    # As the playbooks isolate a copy that is not to serve.
    isolated = "ledger-bare-isolated"
    family = rds.describe_db_parameter_groups()["DBParameterGroups"][0]["DBParameterGroupFamily"]
    rds.create_db_parameter_group(DBParameterGroupName=isolated, DBParameterGroupFamily=family, Description="isolated")
    module(
        emulated_rds,
        "rds_restore",
        db_instance_identifier="ledger-bare",
        **asked,
        multi_az=False,
        vpc_security_group_ids=[],
        deletion_protection=False,
        monitoring_interval=0,
        enable_performance_insights=False,
        backup_retention_period=0,
        enable_cloudwatch_logs_exports=[],
        enable_iam_database_authentication=False,
        copy_tags_to_snapshot=False,
        max_allocated_storage=0,
        associated_roles=[],
        tags={},
        db_parameter_group_name=isolated,
    )
    bare = emulated_rds.instance("ledger-bare")
    for key in (
        "MultiAZ",
        "DeletionProtection",
        "MonitoringInterval",
        "PerformanceInsightsEnabled",
        "BackupRetentionPeriod",
        "EnabledCloudwatchLogsExports",
        "IAMDatabaseAuthenticationEnabled",
        "CopyTagsToSnapshot",
        "MaxAllocatedStorage",
        "AssociatedRoles",
    ):
        assert not bare.get(key), key
    assert bare["VpcSecurityGroups"] != source["VpcSecurityGroups"]
    assert all(tag["Key"].startswith("dbre:") for tag in bare["TagList"])

    def beside(incident: str) -> list[dict[str, Any]]:
        other = {**asked, "incident": incident, "db_instance_identifier": "ledger-other"}
        found: list[dict[str, Any]] = module(emulated_rds, "rds_restore", "--check", **other)["beside"]
        return found

    # The other copy is as its source is, and may have taken its place.
    (kept,) = beside("i3")
    assert (kept["incident"], kept["path"]) == ("i2", "ledger-bare")
    assert datetime.fromisoformat(kept["created"]) > datetime.now(timezone.utc) - timedelta(minutes=10)
    assert beside("i2") == [], "its own run knows it"
    assert ansible(shlex.split(kept["remove"]))["changed"] is True
    assert beside("i3") == []
    assert emulated_rds.instance("ledger-same")
