# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each setting is inherited and can be overridden, one by one; none of AWS's parameters is forgotten."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import (
    differences,
    modify_arguments,
    plan_settings,
    restore_arguments,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import (
    CLUSTER,
    INSTANCE,
    MEMBER,
    Setting,
    argument_spec,
    cluster_settings,
)
from botocore.validate import validate_parameters

MODEL = botocore.session.get_session().get_service_model("rds")

NAMES = "says which, when or what to restore"
ORACLE = "of Oracle, SQL Server or Db2 only"
CUSTOM = "of RDS Custom only"
OUTPOSTS = "of RDS on Outposts only"
SECRET = "a secret of Secrets Manager stays with its source; the result says so"
LEFT_OUT = {
    # Restores of instances
    "TargetDBInstanceIdentifier": NAMES,
    "SourceDBInstanceIdentifier": NAMES,
    "SourceDbiResourceId": NAMES,
    "SourceDBInstanceAutomatedBackupsArn": NAMES,
    "DBInstanceIdentifier": NAMES,
    "DBSnapshotIdentifier": NAMES,
    "DBClusterSnapshotIdentifier": "makes an instance of a Multi-AZ cluster's snapshot, which is no copy of it",
    "RestoreTime": NAMES,
    "UseLatestRestorableTime": NAMES,
    "Engine": "that of the source",
    "EngineVersion": "that of the snapshot; a restore is no upgrade",
    "DBName": "PostgreSQL has all databases of the source",
    "TagSpecifications": "tags of automated backups, which AWS gives those of the instance",
    "AdditionalStorageVolumes": ORACLE,
    "TdeCredentialArn": ORACLE,
    "TdeCredentialPassword": ORACLE,
    "DomainAuthSecretArn": "self-managed directories are for SQL Server only",
    "DomainDnsIps": "self-managed directories are for SQL Server only",
    "DomainFqdn": "self-managed directories are for SQL Server only",
    "DomainOu": "self-managed directories are for SQL Server only",
    "MultiTenant": ORACLE,
    "CustomIamInstanceProfile": CUSTOM,
    "BackupTarget": OUTPOSTS,
    "EnableCustomerOwnedIp": OUTPOSTS,
    "ManageMasterUserPassword": SECRET,
    "MasterUserSecretKmsKeyId": SECRET,
    "RotateMasterUserPassword": SECRET,
    "UseDefaultProcessorFeatures": "what an empty processor_features means",
    "DBCapacityReservationIdentifier": "the reservation is used up by the source",
    # Changes of instances
    "ApplyImmediately": "always",
    "AllowMajorVersionUpgrade": "a restore is no upgrade",
    "NewDBInstanceIdentifier": "renaming is rds_identifier_swap",
    "MasterUserPassword": "master_user_password, which is nothing to inherit",
    "MasterUserAuthenticationType": "AWS does not show it, so it cannot be inherited",
    "AutomationMode": CUSTOM,
    "ResumeFullAutomationModeMinutes": CUSTOM,
    "AwsBackupRecoveryPointArn": "AWS Backup sets it",
    "CertificateRotationRestart": "how to change a certificate, not which",
    "DBSecurityGroups": "of EC2-Classic, which has ended",
    "DisableDomain": "what an empty domain means",
    "ReplicaMode": ORACLE,
    "PromotionTier": "of members of a cluster",
    # Restores and changes of clusters
    "DBClusterIdentifier": NAMES,
    "SourceDBClusterIdentifier": NAMES,
    "SourceDbClusterResourceId": NAMES,
    "SnapshotIdentifier": NAMES,
    "RestoreToTime": NAMES,
    "RestoreType": NAMES,
    "NewDBClusterIdentifier": "renaming is rds_identifier_swap",
    "AvailabilityZones": "those of the subnet group; members have theirs",
    "BacktrackWindow": "of Aurora MySQL only",
    "DatabaseName": "PostgreSQL has all databases of the source",
    "RdsCustomClusterConfiguration": CUSTOM,
    "ScalingConfiguration": "of Aurora Serverless v1, which has ended",
    "EnableHttpEndpoint": "of Aurora Serverless v1; for others the result says that the Data API is off",
    "EnableLocalWriteForwarding": "of Aurora MySQL only",
    "EnableGlobalWriteForwarding": "of secondary clusters of a global database, which a copy is not",
    "EnableLimitlessDatabase": "cannot be switched on for a restored cluster",
    "EnableVPCNetworking": "for clusters without a VPC, which have no security or subnet groups to inherit",
    "EnableInternetAccessGateway": "for clusters without a VPC",
    "AllowEngineModeChange": "of Aurora Serverless v1, which has ended",
    "DBInstanceParameterGroupName": "for major upgrades only; members have theirs",
    # Creation of members
    "MasterUsername": "the cluster's",
    "StorageEncrypted": "the cluster's",
    "KmsKeyId": "the cluster's",
    "DBSystemId": ORACLE,
    "CharacterSetName": ORACLE,
    "NcharCharacterSetName": ORACLE,
    "Timezone": ORACLE,
}
CALLS: dict[str, tuple[Setting, ...]] = {
    "RestoreDBInstanceToPointInTime": INSTANCE,
    "RestoreDBInstanceFromDBSnapshot": INSTANCE,
    "ModifyDBInstance": INSTANCE,
    "RestoreDBClusterToPointInTime": CLUSTER,
    "RestoreDBClusterFromSnapshot": CLUSTER,
    "ModifyDBCluster": CLUSTER,
    # What an Aurora member has not itself is the cluster's.
    "CreateDBInstance": (*MEMBER, *INSTANCE),
}

INSTANCE_SHOWN: dict[str, Any] = {
    "DBInstanceIdentifier": "shop",
    "DBInstanceClass": "db.r6g.large",
    "MultiAZ": True,
    "AvailabilityZone": "eu-central-1a",
    "DBSubnetGroup": {"DBSubnetGroupName": "private"},
    "DBParameterGroups": [{"DBParameterGroupName": "shop-17", "ParameterApplyStatus": "in-sync"}],
    "OptionGroupMemberships": [{"OptionGroupName": "shop-options", "Status": "in-sync"}],
    "Endpoint": {"Address": "shop.x.eu-central-1.rds.amazonaws.com", "Port": 5433},
    "LicenseModel": "postgresql-license",
    "AllocatedStorage": 500,
    "StorageType": "gp3",
    "Iops": 14000,
    "StorageThroughput": 600,
    "MaxAllocatedStorage": 1000,
    "DedicatedLogVolume": True,
    "CACertificateIdentifier": "rds-ca-ecc384-g1",
    "ProcessorFeatures": [{"Name": "coreCount", "Value": "1"}, {"Name": "threadsPerCore", "Value": "1"}],
    "VpcSecurityGroups": [
        {"VpcSecurityGroupId": "sg-1", "Status": "active"},
        {"VpcSecurityGroupId": "sg-2", "Status": "active"},
    ],
    "IAMDatabaseAuthenticationEnabled": True,
    "EnabledCloudwatchLogsExports": ["postgresql", "upgrade"],
    "DeletionProtection": True,
    "CopyTagsToSnapshot": True,
    "BackupRetentionPeriod": 14,
    "PreferredBackupWindow": "03:00-03:30",
    "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
    "MonitoringInterval": 30,
    "MonitoringRoleArn": "arn:aws:iam::123456789012:role/monitoring",
    "PerformanceInsightsEnabled": True,
    "PerformanceInsightsKMSKeyId": "arn:aws:kms:eu-central-1:123456789012:key/pi",
    "PerformanceInsightsRetentionPeriod": 465,
    "DatabaseInsightsMode": "advanced",
    "NetworkType": "DUAL",
    "PubliclyAccessible": True,
    "AutoMinorVersionUpgrade": True,
    "EngineLifecycleSupport": "open-source-rds-extended-support-disabled",
    "DomainMemberships": [{"Domain": "d-1", "Status": "joined", "IAMRoleName": "directory"}],
    "TagList": [{"Key": "team", "Value": "shop"}, {"Key": "aws:made-by", "Value": "aws"}],
    "AssociatedRoles": [
        {"RoleArn": "arn:aws:iam::123456789012:role/s3", "FeatureName": "s3Import", "Status": "ACTIVE"}
    ],
    "PromotionTier": 2,
}
INSTANCE_WANTED: dict[str, Any] = {
    "db_instance_class": "db.r6g.large",
    "multi_az": True,
    "db_subnet_group_name": "private",
    "db_parameter_group_name": "shop-17",
    "option_group_name": "shop-options",
    "port": 5433,
    "license_model": "postgresql-license",
    "allocated_storage": 500,
    "storage_type": "gp3",
    "iops": 14000,
    "storage_throughput": 600,
    "max_allocated_storage": 1000,
    "dedicated_log_volume": True,
    "ca_certificate_identifier": "rds-ca-ecc384-g1",
    "processor_features": {"coreCount": "1", "threadsPerCore": "1"},
    "vpc_security_group_ids": ["sg-1", "sg-2"],
    "enable_iam_database_authentication": True,
    "enable_cloudwatch_logs_exports": ["postgresql", "upgrade"],
    "deletion_protection": True,
    "copy_tags_to_snapshot": True,
    "backup_retention_period": 14,
    "preferred_backup_window": "03:00-03:30",
    "preferred_maintenance_window": "sun:05:00-sun:05:30",
    "monitoring_interval": 30,
    "monitoring_role_arn": "arn:aws:iam::123456789012:role/monitoring",
    "enable_performance_insights": True,
    "performance_insights_kms_key_id": "arn:aws:kms:eu-central-1:123456789012:key/pi",
    "performance_insights_retention_period": 465,
    "database_insights_mode": "advanced",
    "network_type": "DUAL",
    "publicly_accessible": True,
    "auto_minor_version_upgrade": True,
    "engine_lifecycle_support": "open-source-rds-extended-support-disabled",
    "domain": "d-1",
    "domain_iam_role_name": "directory",
    "tags": {"team": "shop"},
    "associated_roles": [{"role_arn": "arn:aws:iam::123456789012:role/s3", "feature_name": "s3Import"}],
}
CLUSTER_SHOWN: dict[str, Any] = {
    **{
        key: INSTANCE_SHOWN[key]
        for key in (
            "VpcSecurityGroups",
            "IAMDatabaseAuthenticationEnabled",
            "EnabledCloudwatchLogsExports",
            "DeletionProtection",
            "CopyTagsToSnapshot",
            "BackupRetentionPeriod",
            "PreferredBackupWindow",
            "PreferredMaintenanceWindow",
            "MonitoringInterval",
            "MonitoringRoleArn",
            "PerformanceInsightsEnabled",
            "PerformanceInsightsKMSKeyId",
            "PerformanceInsightsRetentionPeriod",
            "DatabaseInsightsMode",
            "AllocatedStorage",
            "NetworkType",
            "PubliclyAccessible",
            "AutoMinorVersionUpgrade",
            "EngineLifecycleSupport",
            "DomainMemberships",
            "TagList",
            "AssociatedRoles",
        )
    },
    "StorageType": "io1",
    "Iops": 3000,
    "DBClusterIdentifier": "orders",
    "DBSubnetGroup": "private",
    "DBClusterParameterGroup": "orders-17",
    "DBClusterOptionGroupMemberships": [{"DBClusterOptionGroupName": "orders-options", "Status": "in-sync"}],
    "Port": 5433,
    "EngineMode": "provisioned",
    "DBClusterInstanceClass": "db.m6gd.large",
    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0},
    "LocalWriteForwardingStatus": "enabled",
    "CertificateDetails": {"CAIdentifier": "rds-ca-ecc384-g1"},
}
CLUSTER_WANTED: dict[str, Any] = {
    **{setting.option: INSTANCE_WANTED[setting.option] for setting in CLUSTER if setting.option in INSTANCE_WANTED},
    "storage_type": "io1",
    "iops": 3000,
    "db_cluster_parameter_group_name": "orders-17",
    "option_group_name": "orders-options",
    "engine_mode": "provisioned",
    "db_cluster_instance_class": "db.m6gd.large",
    "serverless_v2_scaling_configuration": {"min_capacity": 0.5, "max_capacity": 8.0},
    "enable_local_write_forwarding": True,
}
MEMBER_WANTED: dict[str, Any] = {
    **{setting.option: INSTANCE_WANTED[setting.option] for setting in MEMBER if setting.option in INSTANCE_WANTED},
    "promotion_tier": 2,
    "availability_zone": "eu-central-1a",
}
# What is off, none or nothing of each kind of setting.
NOTHING = {"bool": False, "int": 0, "str": "", "list": [], "dict": {}}
EVERY = [
    *((INSTANCE, INSTANCE_SHOWN, INSTANCE_WANTED, setting) for setting in INSTANCE),
    *((CLUSTER, CLUSTER_SHOWN, CLUSTER_WANTED, setting) for setting in CLUSTER),
    *((MEMBER, INSTANCE_SHOWN, MEMBER_WANTED, setting) for setting in MEMBER),
]
# Roles are brought by a call of their own.
BROUGHT = [case for case in EVERY if case[3].read is not None and case[3].option != "associated_roles"]
KINDS = {id(INSTANCE): "instance", id(CLUSTER): "cluster", id(MEMBER): "member"}


def named(case: Any) -> str:
    return f"{KINDS[id(case[0])]}-{case[3].option}"


def members(call: str) -> frozenset[str]:
    shape = MODEL.operation_model(call).input_shape
    assert shape is not None
    return frozenset(shape.members)


@pytest.mark.parametrize(
    ("call", "parameter"), [(call, parameter) for call in CALLS for parameter in sorted(members(call))]
)
def test_each_parameter_of_aws_is_a_setting_or_left_out_for_a_reason(call: str, parameter: str) -> None:
    known = {name for setting in CALLS[call] for name in (setting.parameter, setting.modify)}
    assert parameter in known or parameter in LEFT_OUT


def test_nothing_is_listed_as_left_out_that_aws_does_not_have() -> None:
    assert set(LEFT_OUT) <= {parameter for call in CALLS for parameter in members(call)}


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_a_copy_inherits_the_setting(case: Any) -> None:
    table, shown, wanted, setting = case
    plan = plan_settings(table, shown, {})
    if setting.read is None:
        assert setting.option not in plan.wanted
    else:
        assert plan.inherited[setting.option] == plan.wanted[setting.option] == wanted[setting.option]


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_the_setting_can_be_overridden_with_false_zero_or_nothing(case: Any) -> None:
    table, shown, _wanted, setting = case
    nothing = NOTHING[setting.kind]
    plan = plan_settings(table, shown, {setting.option: nothing})
    assert plan.wanted[setting.option] == plan.overridden[setting.option] == nothing
    assert type(plan.wanted[setting.option]) is type(nothing)
    assert setting.option not in plan.inherited


@pytest.mark.parametrize("case", BROUGHT, ids=named)
def test_the_inherited_setting_reaches_aws_by_the_restore_or_by_a_change_after_it(case: Any) -> None:
    table, _shown, wanted, setting = case
    restores = {
        "instance": ("RestoreDBInstanceToPointInTime", "RestoreDBInstanceFromDBSnapshot", "ModifyDBInstance"),
        "cluster": ("RestoreDBClusterToPointInTime", "RestoreDBClusterFromSnapshot", "ModifyDBCluster"),
        "member": ("CreateDBInstance", "CreateDBInstance", "ModifyDBInstance"),
    }[KINDS[id(table)]]
    modify = members(restores[2])
    for call in restores[:2]:
        sent = restore_arguments(table, {setting.option: wanted[setting.option]}, members(call))
        if setting.parameter in members(call):
            assert list(sent) == [setting.parameter]
            checked(call, sent)
        else:
            assert sent == {}
            changes = differences(table, {setting.option: wanted[setting.option]}, {}, modify)
            assert [change.option for change in changes] == [setting.option]
            checked(restores[2], modify_arguments(changes, wanted, {}))


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_a_copy_that_has_the_setting_already_is_left_alone(case: Any) -> None:
    table, shown, wanted, setting = case
    if setting.option in wanted:
        modify = members("ModifyDBCluster" if table is CLUSTER else "ModifyDBInstance")
        assert differences(table, {setting.option: wanted[setting.option]}, shown, modify) == []


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_an_override_with_false_or_zero_is_sent_or_was_the_default_already(case: Any) -> None:
    """A copy that got the source's setting is changed by an override that is false, zero, or an empty list of logs."""
    table, shown, _wanted, setting = case
    nothing = NOTHING[setting.kind]
    modify = members("ModifyDBCluster" if table is CLUSTER else "ModifyDBInstance")
    changes = differences(table, {setting.option: nothing}, shown, modify)
    changeable = setting.modify in modify and setting.read is not None
    shrinks = setting.option == "allocated_storage"
    left_to_aws = setting.kind in ("str", "list", "dict") and setting.option not in (
        "enable_cloudwatch_logs_exports",
        "processor_features",
        "serverless_v2_scaling_configuration",
        "domain",
    )
    assert [change.option for change in changes] == (
        [setting.option] if changeable and not shrinks and not left_to_aws else []
    )


def checked(call: str, arguments: dict[str, Any]) -> None:
    """Check arguments against the service model, apart from the name of what is called."""
    shape = MODEL.operation_model(call).input_shape
    assert shape is not None
    validate_parameters({**dict.fromkeys(shape.required_members, "x"), **arguments}, shape)


@pytest.mark.parametrize("table", [INSTANCE, CLUSTER, MEMBER], ids=["instance", "cluster", "member"])
def test_everything_that_is_inherited_at_once_is_a_valid_request(table: tuple[Setting, ...]) -> None:
    call = {id(INSTANCE): "RestoreDBInstanceToPointInTime", id(CLUSTER): "RestoreDBClusterToPointInTime"}.get(
        id(table), "CreateDBInstance"
    )
    shown = CLUSTER_SHOWN if table is CLUSTER else INSTANCE_SHOWN
    plan = plan_settings(table, shown, {})
    checked(call, restore_arguments(table, plan.wanted, members(call)))
    modify = "ModifyDBCluster" if table is CLUSTER else "ModifyDBInstance"
    changes = differences(table, plan.wanted, {}, members(modify))
    checked(modify, modify_arguments(changes, plan.wanted, {}))


def test_each_setting_is_an_option_of_its_type() -> None:
    spec = argument_spec()
    for setting in (*INSTANCE, *CLUSTER):
        assert spec[setting.option]["type"] == setting.kind
    assert set(spec["members"]["options"]) == {"db_instance_identifier", *(setting.option for setting in MEMBER)}


@pytest.mark.parametrize("call", ["RestoreDBClusterToPointInTime", "RestoreDBClusterFromSnapshot"])
def test_an_aurora_restore_is_not_asked_for_insights_which_it_refuses_and_gets_them_by_a_change(call: str) -> None:
    insights = {
        "enable_performance_insights": True,
        "performance_insights_kms_key_id": "arn:aws:kms:eu-central-1:123456789012:key/pi",
        "performance_insights_retention_period": 465,
        "database_insights_mode": "advanced",
    }
    # A later botocore may know DatabaseInsightsMode there.
    takes = members(call) | {"DatabaseInsightsMode"}
    aurora = cluster_settings("aurora-postgresql")
    assert restore_arguments(aurora, insights, takes) == {}
    changes = differences(aurora, insights, {}, members("ModifyDBCluster"))
    asked = modify_arguments(changes, insights, {})
    checked("ModifyDBCluster", asked)
    assert set(asked) == set(restore_arguments(cluster_settings("postgres"), insights, takes))


def test_an_aurora_cluster_is_not_asked_for_what_only_multi_az_clusters_have() -> None:
    aurora = {setting.option for setting in cluster_settings("aurora-postgresql")}
    multi_az = {setting.option for setting in cluster_settings("postgres")}
    assert multi_az - aurora == {
        "allocated_storage",
        "ca_certificate_identifier",
        "db_cluster_instance_class",
        "iops",
        "monitoring_interval",
        "monitoring_role_arn",
        "publicly_accessible",
    }
