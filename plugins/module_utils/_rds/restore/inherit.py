# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy takes from its source, what it does not, and the calls that bring it there. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import GP3_TUNABLE, Setting

# An override with one of these leaves the setting to AWS: nothing of the source, nothing of ours.
EMPTY: tuple[Any, ...] = ("", [], {})
# Groups that AWS itself has in every region.
_EVERYWHERE = ("default.", "default:")
_GROUPS = ("db_parameter_group_name", "db_cluster_parameter_group_name", "option_group_name")


@dataclass
class Plan:
    """What a copy is to have: ``wanted`` by option, and where each came from or why it did not."""

    wanted: dict[str, Any] = field(default_factory=dict)
    inherited: dict[str, Any] = field(default_factory=dict)
    overridden: dict[str, Any] = field(default_factory=dict)
    not_inherited: list[dict[str, str]] = field(default_factory=list)

    def leave(self, option: str, reason: str) -> None:
        """Take an inherited setting back."""
        if option in self.inherited:
            del self.inherited[option]
            del self.wanted[option]
            self.not_inherited.append({"name": option, "reason": reason})

    def forget(self, option: str) -> None:
        """Take an inherited setting back that nobody misses: AWS gives it by itself, or it was none."""
        if option in self.inherited:
            del self.inherited[option]
            del self.wanted[option]


def plan_settings(
    table: Iterable[Setting],
    source: Optional[Mapping[str, Any]],
    overrides: Mapping[str, Any],
    elsewhere: Optional[str] = None,
    unknown: Optional[str] = None,
) -> Plan:
    """What a copy is to have.

    ``source`` is what AWS shows of the source, None to inherit nothing; ``overrides`` are options as given, None where
    not given (false, 0 and empty values are given). ``elsewhere`` is the source's region where it is another one than
    the copy's. ``unknown`` is why a setting that ``source`` does not hold is not known; None where it means "not set".
    """
    plan = Plan()
    for setting in table:
        given = overrides.get(setting.option)
        if given is not None:
            plan.wanted[setting.option] = plan.overridden[setting.option] = given
            continue
        if source is None or setting.read is None:
            continue
        value = setting.read(source)
        if value is None and unknown:
            plan.not_inherited.append({"name": setting.option, "reason": unknown})
        elif value is None or value in EMPTY:
            continue
        elif setting.regional and elsewhere and not _everywhere(setting.option, value):
            shown = ", ".join(value) if isinstance(value, list) else value
            reason = f"{shown} exists in {elsewhere} only: give {setting.option} of this region"
            plan.not_inherited.append({"name": setting.option, "reason": reason})
        else:
            plan.wanted[setting.option] = plan.inherited[setting.option] = value
    _let_go(plan)
    _let_go_of_baselines(plan, (source or {}).get("AllocatedStorage"))
    return plan


def _everywhere(option: str, value: Any) -> bool:
    return option in _GROUPS and str(value).startswith(_EVERYWHERE)


def _let_go(plan: Plan) -> None:
    """Take back what is inherited but does not go together with what is overridden; AWS would refuse the call."""
    given = plan.overridden
    if given.get("monitoring_interval") == 0:
        plan.leave("monitoring_role_arn", "monitoring_interval is 0")
    if given.get("enable_performance_insights") is False:
        reason = "enable_performance_insights is false"
        plan.leave("performance_insights_kms_key_id", reason)
        plan.leave("performance_insights_retention_period", reason)
        plan.leave("database_insights_mode", reason)
    if given.get("database_insights_mode") == "standard":
        # The retention that the advanced mode demands would be paid for on.
        plan.leave("performance_insights_retention_period", "database_insights_mode is standard")
    if given.get("backup_retention_period") == 0:
        plan.leave("preferred_backup_window", "backup_retention_period is 0")
    if "db_instance_class" in given:
        plan.leave("processor_features", "db_instance_class is another")
    if "storage_type" in given:
        plan.leave("iops", "storage_type is another")
        plan.leave("storage_throughput", "storage_type is another")
    if given.get("domain") in EMPTY:
        plan.leave("domain_iam_role_name", "domain is empty")


def _let_go_of_baselines(plan: Plan, source_size: Optional[int]) -> None:
    """Take back inherited speeds of storage that AWS shows, but gives by itself and refuses to be told.

    ``source_size`` is in GiB. Storage that grows over the limit has another baseline than the source's.
    """
    kind, sizes = plan.wanted.get("storage_type"), (plan.wanted.get("allocated_storage"), source_size)
    baseline = kind in ("gp2", "standard") or (
        kind == "gp3" and any(size is not None and size < GP3_TUNABLE for size in sizes)
    )
    for option in ("iops", "storage_throughput"):
        # 0 is how AWS shows "none". Throughput can be asked for of gp3 only, not even 0 of any other.
        if baseline or plan.inherited.get(option) == 0 or (option == "storage_throughput" and kind != "gp3"):
            plan.forget(option)


def refuse_unknown(table: Iterable[Setting], overrides: Mapping[str, Any], kind: str) -> None:
    """Raise RecoveryError for an override that ``kind`` of thing does not have."""
    known = {setting.option for setting in table}
    wrong = sorted(option for option, given in overrides.items() if given is not None and option not in known)
    if wrong:
        raise RecoveryError(f"{', '.join(wrong)}: no setting of {kind}. Nothing was changed. Leave it out.")


def restore_arguments(table: Iterable[Setting], wanted: Mapping[str, Any], takes: Collection[str]) -> dict[str, Any]:
    """Settings for a call that makes the copy and takes the parameters ``takes``."""
    arguments: dict[str, Any] = {}
    for setting in table:
        value = wanted.get(setting.option)
        if value is None or setting.parameter not in takes:
            continue
        if setting.option == "processor_features" and value == {}:
            arguments["UseDefaultProcessorFeatures"] = True
        elif value not in EMPTY and not (setting.option == "max_allocated_storage" and value == 0):
            arguments[setting.parameter] = setting.encode(value)
    return arguments


def differences(
    table: Iterable[Setting], wanted: Mapping[str, Any], described: Mapping[str, Any], takes: Collection[str]
) -> list[Setting]:
    """Settings of a copy that are not as wanted and that a call taking ``takes`` can change."""
    return [
        setting
        for setting in table
        if setting.modify in takes
        and setting.read is not None
        and wanted.get(setting.option) is not None
        and not _as_wanted(setting.option, wanted[setting.option], setting.read(described))
    ]


def modify_arguments(
    changes: Iterable[Setting], wanted: Mapping[str, Any], described: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings for a modify call that makes ``changes``."""
    arguments: dict[str, Any] = {}
    for setting in changes:
        value = wanted[setting.option]
        if setting.option == "enable_cloudwatch_logs_exports":
            now = set(described.get("EnabledCloudwatchLogsExports") or [])
            changed = {"EnableLogTypes": sorted(set(value) - now), "DisableLogTypes": sorted(now - set(value))}
            arguments[setting.modify] = {kind: logs for kind, logs in changed.items() if logs}
        elif setting.option == "max_allocated_storage" and value == 0:
            # Autoscaling of storage ends by a limit that is reached already (RDS user guide).
            arguments[setting.modify] = described.get("AllocatedStorage")
        elif setting.option == "processor_features" and value == {}:
            arguments["UseDefaultProcessorFeatures"] = True
        elif setting.option == "domain" and value == "":
            arguments["DisableDomain"] = True
        else:
            arguments[setting.modify] = setting.encode(value)
    # AWS takes the two only together.
    if "MonitoringRoleArn" in arguments and wanted.get("monitoring_interval"):
        arguments["MonitoringInterval"] = wanted["monitoring_interval"]
    if arguments.get("MonitoringInterval") and wanted.get("monitoring_role_arn"):
        arguments["MonitoringRoleArn"] = wanted["monitoring_role_arn"]
    if "PerformanceInsightsKMSKeyId" in arguments or "PerformanceInsightsRetentionPeriod" in arguments:
        arguments.setdefault("EnablePerformanceInsights", True)
    if arguments.get("DatabaseInsightsMode") == "advanced":
        arguments["EnablePerformanceInsights"] = True
        arguments["PerformanceInsightsRetentionPeriod"] = wanted.get("performance_insights_retention_period") or 465
    # AWS takes size and IOPS only together, also the one that stays as it is (ModifyDBInstance).
    grows = "AllocatedStorage" in arguments or "StorageThroughput" in arguments
    if grows and "StorageType" not in arguments and _provisioned(described):
        arguments.setdefault("Iops", described["Iops"])
    if "Iops" in arguments and described.get("AllocatedStorage"):
        arguments.setdefault("AllocatedStorage", described["AllocatedStorage"])
    return arguments


def _provisioned(described: Mapping[str, Any]) -> bool:
    """Whether an instance or a cluster has IOPS of its own, not those of a baseline."""
    kind, size = described.get("StorageType"), described.get("AllocatedStorage") or 0
    return bool(described.get("Iops")) and (kind in ("io1", "io2") or (kind == "gp3" and size >= GP3_TUNABLE))


def _as_wanted(option: str, wanted: Any, now: Any) -> bool:
    """Whether a setting is as wanted. What AWS does not show is not set: false, 0, none."""
    if option == "enable_cloudwatch_logs_exports" or (wanted not in EMPTY and isinstance(wanted, list)):
        return sorted(wanted) == sorted(now or [])
    if wanted == {} or (option == "domain" and wanted == ""):
        return not now
    if wanted in EMPTY:
        return True
    if option == "allocated_storage":
        return int(now or 0) >= int(wanted)  # It never shrinks.
    if option == "max_allocated_storage" and not wanted:
        return not now
    if option in ("preferred_backup_window", "preferred_maintenance_window"):
        return str(wanted).lower() == str(now).lower()
    if option == "performance_insights_kms_key_id":
        return same_key(str(wanted), str(now or ""))
    if option == "database_insights_mode":
        return bool(wanted == (now or "standard"))
    if isinstance(wanted, dict):
        given = {key: value for key, value in wanted.items() if value is not None}
        if option == "processor_features":
            given = {name: str(value) for name, value in given.items()}  # AWS shows strings
        # AWS fills in what was not given.
        return given == {key: value for key, value in (now or {}).items() if key in given}
    if isinstance(wanted, bool) or wanted == 0:
        return bool(wanted) == bool(now)
    return bool(wanted == now)


def same_key(one: str, other: str) -> bool:
    """Whether two names of a KMS key can mean the same one; an alias cannot be told, so it is believed."""
    if ":alias/" in one or one.startswith("alias/"):
        return bool(other)
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def region_of(arn: str) -> Optional[str]:
    """Region in an ARN; None for what is no ARN or has none (IAM)."""
    parts = arn.split(":")
    return parts[3] or None if len(parts) > 5 and parts[0] == "arn" else None


def refuse_foreign(overrides: Mapping[str, Any], region: str) -> None:
    """Raise RecoveryError when a KMS key that was given is of another region than the copy."""
    for option in ("kms_key_id", "performance_insights_kms_key_id"):
        found = region_of(str(overrides.get(option) or ""))
        if found and found != region:
            raise RecoveryError(
                f"{option} {overrides[option]} is a key of {found}, and the copy is made in {region}: a KMS key works "
                f"in its own region only. Nothing was changed. Give a key of {region} (aws kms list-aliases --region "
                f"{region})."
            )
