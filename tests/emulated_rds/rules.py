"""Rules of AWS that moto does not know, as functions that raise AWS's error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Optional

from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends


class Refused(ServiceException):
    """An error of the RDS API: code and message."""


def parameter_value(message: str) -> Refused:
    return Refused("InvalidParameterValue", message)


def parameter_combination(message: str) -> Refused:
    return Refused("InvalidParameterCombination", message)


def instance_state(instance: Any, *allowed: str) -> None:
    """Most calls want an instance that is available."""
    if instance.status not in (allowed or ("available",)):
        raise Refused(
            "InvalidDBInstanceState",
            f"Instance {instance.db_instance_identifier} is not in an available state: {instance.status}.",
        )


def cluster_state(cluster: Any, *allowed: str) -> None:
    if cluster.status not in (allowed or ("available",)):
        raise Refused(
            "InvalidDBClusterStateFault",
            f"DB cluster {cluster.db_cluster_identifier} is not in an available state: {cluster.status}.",
        )


def snapshot_state(snapshot: Any, code: str = "InvalidDBSnapshotState") -> None:
    if snapshot.status != "available":
        raise Refused(code, f"The snapshot {snapshot.resource_id} is not in the available state: {snapshot.status}.")


def restore_moment(
    arguments: Mapping[str, Any],
    window: tuple[Optional[datetime], Optional[datetime]],
    time_key: str = "restore_time",
) -> datetime:
    """The moment a point-in-time restore goes to, in whole seconds; it must lie within the restorable window."""
    asked, latest_asked = arguments.get(time_key), bool(arguments.get("use_latest_restorable_time"))
    if (asked is None) != latest_asked:
        raise parameter_combination("Specify either a restore time or UseLatestRestorableTime, and not both.")
    earliest, latest = window
    if earliest is None or latest is None or latest < earliest:
        raise parameter_value("The specified instance has no backups to restore from yet.")
    moment = latest if asked is None else asked.replace(microsecond=0, tzinfo=timezone.utc)
    if moment > latest:
        raise parameter_value(
            f"The specified instance cannot be restored to a time later than {latest:%Y-%m-%dT%H:%M:%SZ} "
            "because its backups are not available."
        )
    if moment < earliest:
        raise parameter_value(
            f"The specified instance cannot be restored to a time earlier than {earliest:%Y-%m-%dT%H:%M:%SZ} "
            "because its backups are not available."
        )
    return moment


def security_groups(backend: Any, groups: Optional[list[str]]) -> None:
    """Security groups belong to a region."""
    known = ec2_backends[backend.account_id][backend.region_name]
    for group in groups or []:
        if known.get_security_group_from_id(group) is None:
            raise parameter_value(f"Invalid security group , groupId= {group}, groupName=.")


def final_snapshot(skip: Optional[bool], name: Optional[str]) -> None:
    if skip and name:
        raise parameter_combination("FinalDBSnapshotIdentifier can not be specified when deleting without a snapshot.")
    if not skip and not name:
        raise parameter_combination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")


def engine_version(asked: Optional[str], real: str, engine: str) -> str:
    """The version is the real server's; a major version alone, as AWS accepts it, means it too."""
    if asked and asked not in (real, real.split(".")[0]):
        raise parameter_combination(f"Cannot find version {asked} for {engine}")
    return real


def key_of_region(backend: Any, key: Optional[str]) -> Optional[str]:
    """The ARN of a KMS key, which must belong to the region of the call."""
    return backend._validate_kms_key(key) if key else None
