"""One region of the emulated RDS, put together, and the API actions that moto lacks or answers otherwise."""

from __future__ import annotations

from typing import Any

import moto.rds.urls
from moto.core.responses import ActionResult
from moto.rds.models import OptionGroup
from moto.rds.responses import RDSResponse

from .backups import Backups
from .clusters import Cluster, Clusters
from .core import Core
from .instances import Instances
from .logs import Logs
from .parameters import Parameters
from .snapshots import Snapshots


class Backend(Instances, Clusters, Backups, Snapshots, Parameters, Logs, Core):
    """A region."""

    @property
    def _url_module(self) -> Any:
        return Urls

    def create_option_group(self, option_group_kwargs: Any) -> OptionGroup:
        """moto knows no version of PostgreSQL after 13."""
        if option_group_kwargs.get("engine_name") != "postgres":
            return super().create_option_group(option_group_kwargs)
        group = OptionGroup(self, **option_group_kwargs)
        self.option_groups[group.name] = group
        return group

    def remove_role_from_db_instance(self, db_instance_identifier: str, role_arn: str, **_: Any) -> None:
        instance = self._instance(db_instance_identifier)
        instance._associated_roles = [role for role in instance._associated_roles if role.role_arn != role_arn]


class Response(RDSResponse):
    """The API of a region; one call at a time."""

    backend: Backend

    def call_action(self) -> Any:
        with self.backend.emulator.lock:
            return super().call_action()

    def _page(self, key: str, items: list[Any]) -> ActionResult:
        """At most 100 at once, and a marker where the next begin."""
        start, size = int(self.params.get("Marker") or 0), self.params.get("MaxRecords") or 100
        more = str(start + size) if start + size < len(items) else None
        return ActionResult({key: items[start : start + size], "Marker": more})

    def reboot_db_instance(self) -> ActionResult:
        database = self.backend.reboot_db_instance(
            self.params["DBInstanceIdentifier"], bool(self.params.get("ForceFailover"))
        )
        return ActionResult({"DBInstance": database})

    def describe_db_snapshots(self) -> ActionResult:
        filters = {given["Name"]: given["Values"] for given in self.params.get("Filters", [])}
        if resource := self.params.get("DbiResourceId"):
            filters["dbi-resource-id"] = [resource]
        found = self.backend.describe_db_snapshots(
            self.params.get("DBInstanceIdentifier"),
            self.params.get("DBSnapshotIdentifier"),
            self.params.get("SnapshotType"),
            filters,
        )
        return self._page("DBSnapshots", found)

    def describe_db_instance_automated_backups(self) -> ActionResult:
        found = self.backend.describe_db_instance_automated_backups(**self.params)
        return self._page("DBInstanceAutomatedBackups", found)

    def describe_db_cluster_automated_backups(self) -> ActionResult:
        """Of clusters that are there. Unlike AWS it retains none of clusters that were deleted."""
        name, resource = self.params.get("DBClusterIdentifier"), self.params.get("DbClusterResourceId")
        found = [
            {
                "DBClusterIdentifier": cluster.db_cluster_identifier,
                "DbClusterResourceId": cluster.db_cluster_resource_id,
                "DBClusterArn": cluster.arn,
                "Region": cluster.region,
                "Status": "active",
                "RestoreWindow": dict(zip(("EarliestTime", "LatestTime"), cluster.window)),
                "BackupRetentionPeriod": cluster.backup_retention_period,
                "StorageEncrypted": cluster.storage_encrypted,
                "KmsKeyId": cluster.kms_key_id,
                "Engine": cluster.engine,
                "EngineVersion": cluster.engine_version,
            }
            for cluster in self.backend.clusters.values()
            if isinstance(cluster, Cluster)
            and name in (None, cluster.db_cluster_identifier)
            and resource in (None, cluster.db_cluster_resource_id)
        ]
        return self._page("DBClusterAutomatedBackups", found)

    def describe_events(self) -> ActionResult:
        return self._page("Events", self.backend.describe_events(**self.params))

    def describe_db_parameters(self) -> ActionResult:
        found = self.backend.describe_db_parameters(self.params["DBParameterGroupName"], self.params.get("Source"))
        return self._page("Parameters", found)

    def reset_db_parameter_group(self) -> ActionResult:
        group = self.backend.reset_db_parameter_group(**self.params)
        return ActionResult({"DBParameterGroupName": group.name})

    def delete_db_cluster(self) -> ActionResult:
        cluster = self.backend.delete_db_cluster(
            self.params["DBClusterIdentifier"],
            self.params.get("FinalDBSnapshotIdentifier"),
            self.params.get("SkipFinalSnapshot"),
        )
        return ActionResult({"DBCluster": cluster})

    def download_db_log_file_portion(self) -> ActionResult:
        return ActionResult(self.backend.download_db_log_file_portion(**self.params))

    def start_db_instance_automated_backups_replication(self) -> ActionResult:
        backup = self.backend.start_db_instance_automated_backups_replication(**self.params)
        return ActionResult({"DBInstanceAutomatedBackup": backup})

    def stop_db_instance_automated_backups_replication(self) -> ActionResult:
        backup = self.backend.stop_db_instance_automated_backups_replication(**self.params)
        return ActionResult({"DBInstanceAutomatedBackup": backup})

    def delete_db_instance_automated_backup(self) -> ActionResult:
        backup = self.backend.delete_db_instance_automated_backup(**self.params)
        return ActionResult({"DBInstanceAutomatedBackup": backup})

    def remove_role_from_db_instance(self) -> ActionResult:
        self.backend.remove_role_from_db_instance(**self.params)
        return ActionResult(None)


class Urls:
    """Where moto finds the API."""

    url_bases = moto.rds.urls.url_bases
    url_paths = {"{0}/$": Response.dispatch}
