# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of instances, clusters and members of clusters: where AWS shows each, and which parameter sets it.

One row a setting. Which call takes a parameter is asked of botocore's service model when it is needed, since AWS adds
parameters to its restore calls from year to year. Names and shapes: botocore/data/rds/2014-10-31/service-2.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import tag_list, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import without_own

Described = Mapping[str, Any]
# gp3 below this many GiB has its baseline only, and RDS refuses to be told it (RDS user guide, "gp3 storage").
GP3_TUNABLE = 400


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Setting:
    """One setting: ``option`` of the module, ``parameter`` of the calls, and how to ``read`` it from what AWS shows.

    ``parameter`` is empty where the call that makes the copy must not be asked for it. ``read`` is None where a copy
    never takes the setting from its source. ``modify`` is the parameter of the modify call; empty where that call has
    none, or must not be asked after the restore. ``regional`` settings name things that exist in one region only.
    ``encode`` makes the parameter from the option.
    """

    option: str
    kind: str
    parameter: str
    read: Optional[Callable[[Described], Any]]
    modify: str
    regional: bool = False
    encode: Callable[[Any], Any] = _same


def _key(name: str) -> Callable[[Described], Any]:
    return lambda described: described.get(name)


def _first(name: str, inner: str) -> Callable[[Described], Any]:
    return lambda described: next((item.get(inner) for item in described.get(name) or []), None)


def _security_groups(described: Described) -> Any:
    groups = described.get("VpcSecurityGroups")
    return None if groups is None else [group["VpcSecurityGroupId"] for group in groups]


def _port(described: Described) -> Any:
    # DbInstancePort is 0 for whatever is no member of a cluster.
    return (described.get("Endpoint") or {}).get("Port") or described.get("DbInstancePort") or None


def _tags(described: Described) -> Any:
    return None if described.get("TagList") is None else without_own(tags_of(described["TagList"]))


def _roles(described: Described) -> Any:
    roles = described.get("AssociatedRoles")
    if roles is None:
        return None
    return [{"role_arn": role.get("RoleArn"), "feature_name": role.get("FeatureName") or ""} for role in roles]


def _encode_roles(roles: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {"RoleArn": role["role_arn"], **({"FeatureName": role["feature_name"]} if role.get("feature_name") else {})}
        for role in roles
    ]


def _processor(described: Described) -> Any:
    features = described.get("ProcessorFeatures")
    return {feature["Name"]: feature["Value"] for feature in features} if features else None


def _local_forwarding(described: Described) -> Any:
    status = described.get("LocalWriteForwardingStatus")
    return None if status is None else status in ("enabled", "enabling", "requested")


_SCALING = {
    "min_capacity": "MinCapacity",
    "max_capacity": "MaxCapacity",
    "seconds_until_auto_pause": "SecondsUntilAutoPause",
}


def _scaling(described: Described) -> Any:
    shown = described.get("ServerlessV2ScalingConfiguration")
    if not shown:
        return None
    return {option: shown[key] for option, key in _SCALING.items() if shown.get(key) is not None}


def _encode_scaling(scaling: Mapping[str, Any]) -> dict[str, Any]:
    return {_SCALING[option]: value for option, value in scaling.items() if value is not None}


def _row(
    option: str,
    kind: str,
    parameter: str,
    read: Optional[Callable[[Described], Any]] = None,
    modify: Optional[str] = None,
    **more: Any,
) -> Setting:
    """A row; without ``read`` and ``modify`` AWS shows the setting, and changes it, by the name of the parameter."""
    return Setting(option, kind, parameter, read or _key(parameter), parameter if modify is None else modify, **more)


# Of instances and of clusters alike.
_SHARED = (
    _row("vpc_security_group_ids", "list", "VpcSecurityGroupIds", _security_groups, regional=True),
    _row(
        "enable_iam_database_authentication",
        "bool",
        "EnableIAMDatabaseAuthentication",
        _key("IAMDatabaseAuthenticationEnabled"),
    ),
    _row(
        "enable_cloudwatch_logs_exports",
        "list",
        "EnableCloudwatchLogsExports",
        _key("EnabledCloudwatchLogsExports"),
        "CloudwatchLogsExportConfiguration",
    ),
    _row("deletion_protection", "bool", "DeletionProtection"),
    _row("copy_tags_to_snapshot", "bool", "CopyTagsToSnapshot"),
    _row("backup_retention_period", "int", "BackupRetentionPeriod"),
    _row("preferred_backup_window", "str", "PreferredBackupWindow"),
    _row("preferred_maintenance_window", "str", "PreferredMaintenanceWindow"),
    _row("monitoring_interval", "int", "MonitoringInterval"),
    _row("monitoring_role_arn", "str", "MonitoringRoleArn"),
    _row("enable_performance_insights", "bool", "EnablePerformanceInsights", _key("PerformanceInsightsEnabled")),
    _row("performance_insights_kms_key_id", "str", "PerformanceInsightsKMSKeyId", regional=True),
    _row("performance_insights_retention_period", "int", "PerformanceInsightsRetentionPeriod"),
    _row("database_insights_mode", "str", "DatabaseInsightsMode"),
    _row("storage_type", "str", "StorageType"),
    _row("iops", "int", "Iops"),
    _row("allocated_storage", "int", "AllocatedStorage"),
    _row("network_type", "str", "NetworkType"),
    _row("publicly_accessible", "bool", "PubliclyAccessible"),
    _row("auto_minor_version_upgrade", "bool", "AutoMinorVersionUpgrade"),
    _row("engine_lifecycle_support", "str", "EngineLifecycleSupport"),
    _row("domain", "str", "Domain", _first("DomainMemberships", "Domain"), regional=True),
    _row("domain_iam_role_name", "str", "DomainIAMRoleName", _first("DomainMemberships", "IAMRoleName"), regional=True),
    _row("tags", "dict", "Tags", _tags, "", encode=tag_list),
    _row("associated_roles", "list", "AssociatedRoles", _roles, "", encode=_encode_roles),
)

INSTANCE = (
    _row("db_instance_class", "str", "DBInstanceClass"),
    _row("multi_az", "bool", "MultiAZ"),
    # Not inherited: the zone may be why there is a restore, and AWS may have no capacity left in it.
    replace(_row("availability_zone", "str", "AvailabilityZone", modify="", regional=True), read=None),
    _row(
        "db_subnet_group_name",
        "str",
        "DBSubnetGroupName",
        lambda described: (described.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
        regional=True,
    ),
    _row(
        "db_parameter_group_name",
        "str",
        "DBParameterGroupName",
        _first("DBParameterGroups", "DBParameterGroupName"),
        regional=True,
    ),
    _row(
        "option_group_name",
        "str",
        "OptionGroupName",
        _first("OptionGroupMemberships", "OptionGroupName"),
        regional=True,
    ),
    _row("port", "int", "Port", _port, "DBPortNumber"),
    _row("license_model", "str", "LicenseModel"),
    _row("storage_throughput", "int", "StorageThroughput"),
    _row("max_allocated_storage", "int", "MaxAllocatedStorage"),
    _row("dedicated_log_volume", "bool", "DedicatedLogVolume"),
    _row("ca_certificate_identifier", "str", "CACertificateIdentifier"),
    _row(
        "processor_features",
        "dict",
        "ProcessorFeatures",
        _processor,
        encode=lambda features: [{"Name": name, "Value": str(value)} for name, value in sorted(features.items())],
    ),
    *_SHARED,
)

CLUSTER = (
    _row("db_subnet_group_name", "str", "DBSubnetGroupName", _key("DBSubnetGroup"), "", regional=True),
    _row(
        "db_cluster_parameter_group_name",
        "str",
        "DBClusterParameterGroupName",
        _key("DBClusterParameterGroup"),
        regional=True,
    ),
    _row(
        "option_group_name",
        "str",
        "OptionGroupName",
        _first("DBClusterOptionGroupMemberships", "DBClusterOptionGroupName"),
        regional=True,
    ),
    _row("port", "int", "Port"),
    _row("engine_mode", "str", "EngineMode", modify=""),
    _row("db_cluster_instance_class", "str", "DBClusterInstanceClass"),
    _row(
        "serverless_v2_scaling_configuration",
        "dict",
        "ServerlessV2ScalingConfiguration",
        _scaling,
        encode=_encode_scaling,
    ),
    # Of Aurora alone; the others do not show it.
    _row("enable_local_write_forwarding", "bool", "EnableLocalWriteForwarding", _local_forwarding),
    _row(
        "ca_certificate_identifier",
        "str",
        "CACertificateIdentifier",
        lambda described: (described.get("CertificateDetails") or {}).get("CAIdentifier"),
    ),
    # Not inherited: AWS takes the key of the source by itself, and where it cannot, no other key can be guessed.
    replace(_row("kms_key_id", "str", "KmsKeyId", modify="", regional=True), read=None),
    *_SHARED,
)

_OF_MEMBERS = (
    "db_instance_class",
    "db_parameter_group_name",
    "publicly_accessible",
    "auto_minor_version_upgrade",
    "preferred_maintenance_window",
    "monitoring_interval",
    "monitoring_role_arn",
    "enable_performance_insights",
    "performance_insights_kms_key_id",
    "performance_insights_retention_period",
    "ca_certificate_identifier",
    "tags",
)
# Members of an Aurora cluster; everything else of theirs is the cluster's.
MEMBER = (
    *(setting for setting in INSTANCE if setting.option in _OF_MEMBERS),
    _row("promotion_tier", "int", "PromotionTier"),
    # Inherited: members in several zones are what keeps the cluster up.
    _row("availability_zone", "str", "AvailabilityZone", modify="", regional=True),
)


# Of Multi-AZ clusters only; in Aurora they are the members' or do not exist.
_NOT_AURORA = frozenset(
    {
        "allocated_storage",
        "ca_certificate_identifier",
        "db_cluster_instance_class",
        "iops",
        "monitoring_interval",
        "monitoring_role_arn",
        "publicly_accessible",
    }
)
# Restores of Aurora clusters have these parameters and refuse them with InvalidParameterCombination (they are for
# Limitless databases, https://github.com/boto/boto3/issues/4634); ModifyDBCluster takes them.
_AFTER_AURORA_RESTORE = frozenset(
    {
        "database_insights_mode",
        "enable_performance_insights",
        "performance_insights_kms_key_id",
        "performance_insights_retention_period",
    }
)
_AURORA_CLUSTER = tuple(
    replace(setting, parameter="") if setting.option in _AFTER_AURORA_RESTORE else setting
    for setting in CLUSTER
    if setting.option not in _NOT_AURORA
)


def is_aurora(engine: Any) -> bool:
    """Whether an engine's clusters are Aurora's, whose members are made one by one."""
    return str(engine or "").startswith("aurora")


def cluster_settings(engine: Any) -> tuple[Setting, ...]:
    """The settings that a cluster of this engine has itself."""
    return _AURORA_CLUSTER if is_aurora(engine) else CLUSTER


def argument_spec() -> dict[str, dict[str, Any]]:
    """Options of a module for all settings. None, the default, leaves a setting to inheritance."""
    spec: dict[str, dict[str, Any]] = {}
    for setting in (*INSTANCE, *CLUSTER):
        spec[setting.option] = {"type": setting.kind}
        if setting.kind == "list":
            spec[setting.option]["elements"] = "str"
    spec["associated_roles"] = {
        "type": "list",
        "elements": "dict",
        "options": {"role_arn": {"type": "str", "required": True}, "feature_name": {"type": "str", "default": ""}},
    }
    spec["serverless_v2_scaling_configuration"] = {
        "type": "dict",
        "options": {
            "min_capacity": {"type": "float"},
            "max_capacity": {"type": "float"},
            "seconds_until_auto_pause": {"type": "int"},
        },
    }
    members = {setting.option: {"type": setting.kind} for setting in MEMBER}
    spec["members"] = {
        "type": "list",
        "elements": "dict",
        "options": {"db_instance_identifier": {"type": "str"}, **members},
    }
    return spec
