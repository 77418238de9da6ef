# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that belong together, and those that belong to a region."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import (
    differences,
    modify_arguments,
    plan_settings,
    region_of,
    restore_arguments,
    same_key,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import CLUSTER, INSTANCE

MODEL = botocore.session.get_session().get_service_model("rds")
MODIFY = frozenset(MODEL.operation_model("ModifyDBInstance").input_shape.members)
RESTORE = frozenset(MODEL.operation_model("RestoreDBInstanceToPointInTime").input_shape.members)


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ({"monitoring_interval": 0}, {"monitoring_role_arn"}),
        (
            {"enable_performance_insights": False},
            {
                "performance_insights_kms_key_id",
                "performance_insights_retention_period",
                "database_insights_mode",
            },
        ),
        ({"database_insights_mode": "standard"}, {"performance_insights_retention_period"}),
        ({"backup_retention_period": 0}, {"preferred_backup_window"}),
        ({"db_instance_class": "db.t4g.small"}, {"processor_features"}),
        ({"storage_type": "io2"}, {"iops", "storage_throughput"}),
        ({"domain": ""}, {"domain_iam_role_name"}),
    ],
)
def test_an_override_takes_along_what_aws_would_refuse_beside_it(override: dict[str, Any], gone: set[str]) -> None:
    shown = {
        "MonitoringInterval": 30,
        "MonitoringRoleArn": "arn:aws:iam::1:role/monitoring",
        "PerformanceInsightsEnabled": True,
        "PerformanceInsightsKMSKeyId": "arn:aws:kms:eu-central-1:1:key/pi",
        "PerformanceInsightsRetentionPeriod": 465,
        "DatabaseInsightsMode": "advanced",
        "BackupRetentionPeriod": 7,
        "PreferredBackupWindow": "03:00-03:30",
        "DBInstanceClass": "db.r6g.large",
        "ProcessorFeatures": [{"Name": "coreCount", "Value": "1"}],
        "StorageType": "gp3",
        "Iops": 14000,
        "StorageThroughput": 600,
        "DomainMemberships": [{"Domain": "d-1", "IAMRoleName": "directory"}],
    }
    whole = plan_settings(INSTANCE, shown, {})
    plan = plan_settings(INSTANCE, shown, override)
    assert set(whole.wanted) - set(plan.wanted) == gone
    assert {left["name"] for left in plan.not_inherited} == gone
    # Given by hand, it stays.
    given = {name: whole.wanted[name] for name in gone}
    assert plan_settings(INSTANCE, shown, {**override, **given}).overridden == {**override, **given}


@pytest.mark.parametrize(
    ("kind", "size", "sent"),
    [("gp3", 20, False), ("gp3", 399, False), ("gp3", 400, True), ("io1", 20, True), ("gp2", 500, False)],
)
def test_iops_of_a_baseline_are_not_asked_for_since_rds_refuses_them(kind: str, size: int, sent: bool) -> None:
    shown = {"StorageType": kind, "AllocatedStorage": size, "Iops": 3000, "StorageThroughput": 125}
    plan = plan_settings(INSTANCE, shown, {})
    assert ("iops" in plan.wanted) is sent
    assert ("storage_throughput" in plan.wanted) is (sent and kind == "gp3")
    assert plan.not_inherited == []


@pytest.mark.parametrize("throughput", [0, 500])
@pytest.mark.parametrize("kind", ["io1", "io2", "gp2", "standard"])
def test_throughput_is_asked_for_of_gp3_only_since_rds_refuses_it_for_any_other_storage(
    kind: str, throughput: int
) -> None:
    shown = {"StorageType": kind, "AllocatedStorage": 500, "Iops": 3000, "StorageThroughput": throughput}
    plan = plan_settings(INSTANCE, shown, {})
    assert "storage_throughput" not in {*plan.wanted, *plan.inherited}
    assert plan.not_inherited == []
    # Who gives it is told by AWS that it is wrong.
    assert plan_settings(INSTANCE, shown, {"storage_throughput": 500}).wanted["storage_throughput"] == 500


def test_speeds_of_zero_are_how_aws_shows_none() -> None:
    shown = {"StorageType": "gp3", "AllocatedStorage": 500, "Iops": 0, "StorageThroughput": 0}
    plan = plan_settings(INSTANCE, shown, {})
    assert plan.wanted == plan.inherited == {"storage_type": "gp3", "allocated_storage": 500}


def test_a_copy_that_is_made_larger_gets_the_baseline_of_its_own_size() -> None:
    shown = {"StorageType": "gp3", "AllocatedStorage": 100, "Iops": 3000, "StorageThroughput": 125}
    larger = {"allocated_storage": 500}
    assert plan_settings(INSTANCE, shown, larger).wanted == {"storage_type": "gp3", "allocated_storage": 500}
    faster = {**larger, "iops": 14000, "storage_throughput": 600}
    assert plan_settings(INSTANCE, shown, faster).wanted == {"storage_type": "gp3", **faster}
    tuned = {"StorageType": "gp3", "AllocatedStorage": 400, "Iops": 14000, "StorageThroughput": 600}
    assert plan_settings(INSTANCE, tuned, larger).wanted == {"storage_type": "gp3", **faster}


@pytest.mark.parametrize(
    ("table", "shown", "option"),
    [
        (INSTANCE, {"VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}]}, "vpc_security_group_ids"),
        (INSTANCE, {"DBSubnetGroup": {"DBSubnetGroupName": "default"}}, "db_subnet_group_name"),
        (INSTANCE, {"DBParameterGroups": [{"DBParameterGroupName": "shop-17"}]}, "db_parameter_group_name"),
        (INSTANCE, {"OptionGroupMemberships": [{"OptionGroupName": "shop"}]}, "option_group_name"),
        (INSTANCE, {"PerformanceInsightsKMSKeyId": "arn:aws:kms:a:1:key/x"}, "performance_insights_kms_key_id"),
        (INSTANCE, {"DomainMemberships": [{"Domain": "d-1"}]}, "domain"),
        (CLUSTER, {"DBClusterParameterGroup": "orders-17"}, "db_cluster_parameter_group_name"),
        (CLUSTER, {"DBSubnetGroup": "private"}, "db_subnet_group_name"),
    ],
)
def test_what_exists_in_one_region_only_is_left_out_in_another_with_the_reason(
    table: Any, shown: dict[str, Any], option: str
) -> None:
    plan = plan_settings(table, shown, {}, elsewhere="us-east-1")
    assert option not in plan.wanted
    assert plan.not_inherited[0]["name"] == option
    assert "exists in us-east-1 only" in plan.not_inherited[0]["reason"]
    given = ["x"] if option == "vpc_security_group_ids" else "x"
    assert plan_settings(table, shown, {option: given}, elsewhere="us-east-1").not_inherited == []
    assert plan_settings(table, shown, {}).not_inherited == []


def test_default_groups_of_aws_exist_in_every_region() -> None:
    shown = {
        "DBParameterGroups": [{"DBParameterGroupName": "default.postgres17"}],
        "OptionGroupMemberships": [{"OptionGroupName": "default:postgres-17"}],
    }
    assert plan_settings(INSTANCE, shown, {}, elsewhere="us-east-1").not_inherited == []


def test_a_setting_that_a_backup_does_not_tell_is_reported_and_not_guessed() -> None:
    plan = plan_settings(INSTANCE, {"Iops": 3000, "StorageType": "io1"}, {"multi_az": False}, unknown="it is gone")
    told = {left["name"] for left in plan.not_inherited}
    assert "db_instance_class" in told
    assert "multi_az" not in told
    assert "iops" not in told
    assert "availability_zone" not in told


def test_a_restore_call_of_an_older_sdk_leaves_its_unknown_parameters_to_the_change_after_it() -> None:
    wanted = {"backup_retention_period": 14, "multi_az": True}
    older = RESTORE - {"BackupRetentionPeriod"}
    assert restore_arguments(INSTANCE, wanted, older) == {"MultiAZ": True}
    changes = differences(INSTANCE, wanted, {"MultiAZ": True, "BackupRetentionPeriod": 7}, MODIFY)
    assert modify_arguments(changes, wanted, {}) == {"BackupRetentionPeriod": 14}


def test_logs_are_switched_on_and_off_by_their_difference() -> None:
    shown = {"EnabledCloudwatchLogsExports": ["postgresql"]}
    for wanted, sent in (
        (["upgrade"], {"EnableLogTypes": ["upgrade"], "DisableLogTypes": ["postgresql"]}),
        ([], {"DisableLogTypes": ["postgresql"]}),
    ):
        settings = {"enable_cloudwatch_logs_exports": wanted}
        changes = differences(INSTANCE, settings, shown, MODIFY)
        assert modify_arguments(changes, settings, shown) == {"CloudwatchLogsExportConfiguration": sent}


def test_autoscaling_of_storage_is_switched_off_by_a_limit_that_is_reached() -> None:
    shown = {"MaxAllocatedStorage": 1000, "AllocatedStorage": 100}
    settings = {"max_allocated_storage": 0}
    assert restore_arguments(INSTANCE, settings, RESTORE) == {}
    changes = differences(INSTANCE, settings, shown, MODIFY)
    assert modify_arguments(changes, settings, shown) == {"MaxAllocatedStorage": 100}
    assert differences(INSTANCE, settings, {"AllocatedStorage": 100}, MODIFY) == []


def test_storage_that_is_larger_already_is_left_alone() -> None:
    assert differences(INSTANCE, {"allocated_storage": 20}, {"AllocatedStorage": 100}, MODIFY) == []


@pytest.mark.parametrize(
    ("kind", "size", "asked", "sent"),
    [
        ("io1", 100, {"allocated_storage": 200}, {"AllocatedStorage": 200, "Iops": 3000}),
        ("io2", 100, {"allocated_storage": 200}, {"AllocatedStorage": 200, "Iops": 3000}),
        ("gp3", 400, {"allocated_storage": 500}, {"AllocatedStorage": 500, "Iops": 3000}),
        ("gp3", 399, {"allocated_storage": 500}, {"AllocatedStorage": 500}),
        ("gp2", 100, {"allocated_storage": 500}, {"AllocatedStorage": 500}),
        ("io1", 100, {"iops": 4000}, {"AllocatedStorage": 100, "Iops": 4000}),
        ("io1", 100, {"allocated_storage": 200, "iops": 4000}, {"AllocatedStorage": 200, "Iops": 4000}),
        (
            "gp3",
            400,
            {"storage_throughput": 600},
            {"AllocatedStorage": 400, "Iops": 3000, "StorageThroughput": 600},
        ),
        (
            "io1",
            400,
            {"allocated_storage": 500, "storage_type": "gp3"},
            {"AllocatedStorage": 500, "StorageType": "gp3"},
        ),
        ("io1", 100, {"multi_az": True}, {"MultiAZ": True}),
    ],
)
def test_a_copy_of_provisioned_storage_can_be_made_larger_or_faster_afterwards(
    kind: str, size: int, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    shown = {"StorageType": kind, "AllocatedStorage": size, "Iops": 3000, "StorageThroughput": 125}
    changes = differences(INSTANCE, asked, shown, MODIFY)
    assert modify_arguments(changes, asked, shown) == sent


def test_what_aws_adds_to_a_scaling_that_was_given_in_part_is_no_difference() -> None:
    asked = {"serverless_v2_scaling_configuration": {"min_capacity": 0, "max_capacity": 8.0}}
    shown = {"MinCapacity": 0.0, "MaxCapacity": 8.0, "SecondsUntilAutoPause": 300}
    modify = frozenset({"ServerlessV2ScalingConfiguration"})
    assert differences(CLUSTER, asked, {"ServerlessV2ScalingConfiguration": shown}, modify) == []
    for other in ({**shown, "MaxCapacity": 4.0}, {"MinCapacity": 0.0}, {}):
        found = differences(CLUSTER, asked, {"ServerlessV2ScalingConfiguration": other}, modify)
        assert [setting.option for setting in found] == ["serverless_v2_scaling_configuration"]


def test_numbers_of_processors_may_be_given_as_numbers() -> None:
    asked = {"processor_features": {"coreCount": 1}}
    shown = [{"Name": "coreCount", "Value": "1"}, {"Name": "threadsPerCore", "Value": "2"}]
    assert differences(INSTANCE, asked, {"ProcessorFeatures": shown}, MODIFY) == []
    assert differences(INSTANCE, {"processor_features": {"coreCount": 2}}, {"ProcessorFeatures": shown}, MODIFY) != []
    assert differences(INSTANCE, asked, {}, MODIFY) != []


def test_empty_processor_features_and_domain_are_the_defaults() -> None:
    settings = {"processor_features": {}, "domain": ""}
    assert restore_arguments(INSTANCE, settings, RESTORE) == {"UseDefaultProcessorFeatures": True}
    shown = {"ProcessorFeatures": [{"Name": "coreCount", "Value": "1"}], "DomainMemberships": [{"Domain": "d-1"}]}
    changes = differences(INSTANCE, settings, shown, MODIFY)
    assert modify_arguments(changes, settings, shown) == {"UseDefaultProcessorFeatures": True, "DisableDomain": True}


def test_parameters_that_aws_takes_only_together_are_sent_together() -> None:
    settings = {
        "monitoring_interval": 30,
        "monitoring_role_arn": "arn:aws:iam::1:role/monitoring",
        "enable_performance_insights": True,
        "performance_insights_retention_period": 465,
        "database_insights_mode": "advanced",
    }
    shown = {
        "MonitoringInterval": 30,
        "PerformanceInsightsEnabled": True,
        "PerformanceInsightsRetentionPeriod": 465,
    }
    changes = differences(INSTANCE, settings, shown, MODIFY)
    assert modify_arguments(changes, settings, shown) == {
        "MonitoringInterval": 30,
        "MonitoringRoleArn": "arn:aws:iam::1:role/monitoring",
        "DatabaseInsightsMode": "advanced",
        "EnablePerformanceInsights": True,
        "PerformanceInsightsRetentionPeriod": 465,
    }


def test_what_aws_writes_otherwise_is_the_same() -> None:
    wanted = {
        "preferred_maintenance_window": "Sun:05:00-Sun:05:30",
        "vpc_security_group_ids": ["sg-2", "sg-1"],
        "performance_insights_kms_key_id": "1234",
        "monitoring_interval": 0,
    }
    shown = {
        "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}, {"VpcSecurityGroupId": "sg-2"}],
        "PerformanceInsightsKMSKeyId": "arn:aws:kms:eu-central-1:1:key/1234",
    }
    assert differences(INSTANCE, wanted, shown, MODIFY) == []


def test_keys_are_compared_by_their_id_and_an_alias_is_believed() -> None:
    assert same_key("arn:aws:kms:eu-central-1:1:key/1234", "1234")
    assert not same_key("1234", "4321")
    assert same_key("alias/shop", "arn:aws:kms:eu-central-1:1:key/1234")
    assert not same_key("alias/shop", "")


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        ("arn:aws:kms:eu-central-1:1:key/x", "eu-central-1"),
        ("arn:aws-cn:rds:cn-north-1:1:snapshot:rds:shop", "cn-north-1"),
        ("arn:aws:iam::1:role/x", None),
        ("alias/shop", None),
        ("shop", None),
    ],
)
def test_the_region_of_an_arn(arn: str, region: Any) -> None:
    assert region_of(arn) == region
