# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RDS API as the rest of the package sees it: one object per region; a thing that is missing is None."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

# Error codes of "it is not there" (botocore/data/rds/2014-10-31/service-2.json; the API leaves out "Fault" or not).
NOT_FOUND = frozenset(
    {
        "DBClusterNotFoundFault",
        "DBClusterSnapshotNotFoundFault",
        "DBInstanceAutomatedBackupNotFound",
        "DBInstanceNotFound",
        "DBInstanceNotFoundFault",
        "DBParameterGroupNotFound",
        "DBSnapshotNotFound",
        "DBSnapshotNotFoundFault",
        "DBClusterAutomatedBackupNotFoundFault",
    }
)


def error_code(error: BaseException) -> str:
    """Code of what the API answered; empty for anything else."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str((response.get("Error") or {}).get("Code", ""))


def error_text(error: BaseException) -> str:
    """What the API said, with its code, for a message."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    said = (response.get("Error") or {}).get("Message")
    return f"{said} ({error_code(error)})" if said else str(error)


def tags_of(raw: Optional[list[Mapping[str, str]]]) -> dict[str, str]:
    """Tags as a dictionary; those of AWS's own (``aws:``) are left out, since nobody may set them."""
    return {tag["Key"]: tag.get("Value", "") for tag in raw or [] if not tag["Key"].startswith("aws:")}


def tag_list(tags: Mapping[str, Any]) -> list[dict[str, str]]:
    """Tags as the API takes them."""
    return [{"Key": str(key), "Value": str(text)} for key, text in sorted(tags.items())]


def _snapshot_type(identifier: str) -> Optional[str]:
    """A snapshot that RDS or AWS Backup made is found by its name only when its type is said too."""
    name = identifier.split(":snapshot:")[-1]
    return "automated" if name.startswith("rds:") else "awsbackup" if name.startswith("awsbackup:") else None


class Rds:
    """RDS in one region. ``client`` is a botocore client (or one that retries), whose methods are called by name."""

    def __init__(self, client: Any, region: str) -> None:
        self.client = client
        self.region = region

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """One call; arguments that are None are left out. Errors are botocore's."""
        given = {name: given for name, given in arguments.items() if given is not None}
        return dict(getattr(self.client, method)(**given))

    def takes(self, method: str) -> frozenset[str]:
        """Parameters of a call, as the botocore in use knows them."""
        meta = self.client.meta
        operation = meta.service_model.operation_model(meta.method_to_api_mapping[method])
        return frozenset(operation.input_shape.members)

    def all(self, method: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """All items of a describe call, page after page; none when the thing asked for is not there."""
        marker: Optional[str] = None
        while True:
            try:
                page = self.call(method, Marker=marker, **arguments)
            except ClientError as error:
                if error_code(error) in NOT_FOUND:
                    return
                raise
            yield from page.get(key) or []
            marker = page.get("Marker")
            if not marker:
                return

    def _one(self, method: str, key: str, **arguments: Any) -> Optional[dict[str, Any]]:
        return next(self.all(method, key, **arguments), None)

    def instance(self, identifier: str) -> Optional[dict[str, Any]]:
        """A DB instance by its identifier."""
        return self._one("describe_db_instances", "DBInstances", DBInstanceIdentifier=identifier)

    def instance_by_resource_id(self, resource_id: str) -> Optional[dict[str, Any]]:
        """A DB instance by its ``DbiResourceId``, which stays the same through renames."""
        filters = [{"Name": "dbi-resource-id", "Values": [resource_id]}]
        found = self.all("describe_db_instances", "DBInstances", Filters=filters)
        return next((item for item in found if item.get("DbiResourceId") == resource_id), None)

    def cluster(self, identifier: str) -> Optional[dict[str, Any]]:
        """A DB cluster (Aurora or Multi-AZ) by its identifier."""
        return self._one("describe_db_clusters", "DBClusters", DBClusterIdentifier=identifier)

    def cluster_by_resource_id(self, resource_id: str) -> Optional[dict[str, Any]]:
        """A DB cluster by its ``DbClusterResourceId``."""
        filters = [{"Name": "db-cluster-resource-id", "Values": [resource_id]}]
        found = self.all("describe_db_clusters", "DBClusters", Filters=filters)
        return next((item for item in found if item.get("DbClusterResourceId") == resource_id), None)

    def snapshot(self, identifier: str) -> Optional[dict[str, Any]]:
        """A snapshot of an instance, by identifier or ARN."""
        kind = _snapshot_type(identifier)
        return self._one("describe_db_snapshots", "DBSnapshots", DBSnapshotIdentifier=identifier, SnapshotType=kind)

    def cluster_snapshot(self, identifier: str) -> Optional[dict[str, Any]]:
        """A snapshot of a cluster, by identifier or ARN."""
        return self._one(
            "describe_db_cluster_snapshots",
            "DBClusterSnapshots",
            DBClusterSnapshotIdentifier=identifier,
            SnapshotType=_snapshot_type(identifier),
        )

    def cluster_automated_backups(self, **arguments: Any) -> list[dict[str, Any]]:
        """Automated backups of clusters in this region, those of deleted clusters included."""
        return list(self.all("describe_db_cluster_automated_backups", "DBClusterAutomatedBackups", **arguments))

    def automated_backups(self, **arguments: Any) -> list[dict[str, Any]]:
        """Automated backups of instances in this region, replicated ones included."""
        return list(self.all("describe_db_instance_automated_backups", "DBInstanceAutomatedBackups", **arguments))
