"""DB clusters: Aurora's, whose instances come and go, and Multi-AZ clusters, which have three from the start.

A cluster's data is one real server. The writer is that server; readers are streaming standbys of it. Without instances
the server is stopped, its data is the cluster's volume.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from moto.ec2.models import ec2_backends
from moto.rds.exceptions import (
    DBClusterNotFoundError,
    DBClusterParameterGroupNotFoundError,
    DBClusterSnapshotAlreadyExistsError,
    DBClusterSnapshotNotFoundError,
    DBClusterToBeDeletedHasActiveMembers,
    InvalidDBInstanceEngine,
    KMSKeyNotAccessibleFault,
)
from moto.rds.models import DBCluster, DBClusterParameterGroup, DBClusterSnapshot, DBInstanceClustered
from moto.rds.utils import FilterDef

from . import rules
from .backups import Window, window
from .core import Core
from .emulator import Step
from .instances import Instance
from .parameters import server_settings
from .postgres import PostgresError, Server, utcnow

# What a restored cluster has of its source; everything else is AWS's default unless the call says it.
INHERITED = (
    "allocated_storage",
    "backup_retention_period",
    "database_name",
    "db_cluster_instance_class",
    "engine",
    "engine_mode",
    "engine_version",
    "iops",
    "kms_key_id",
    "master_username",
    "storage_encrypted",
    "storage_type",
)
QUIET = {"copy_tags_to_snapshot", "deletion_protection", "preferred_backup_window", "preferred_maintenance_window"}
DEFERRED = {"db_cluster_identifier": "DBClusterIdentifier", "engine_version": "EngineVersion"}
ASYNCHRONOUS = {
    "allocated_storage",
    "backup_retention_period",
    "db_cluster_instance_class",
    "db_cluster_parameter_group_name",
    "enable_iam_database_authentication",
    "enable_performance_insights",
    "enabled_cloudwatch_logs_exports",
    "iops",
    "master_user_password",
    "monitoring_interval",
    "monitoring_role_arn",
    "network_type",
    "performance_insights_kms_key_id",
    "performance_insights_retention_period",
    "port",
    "serverless_v2_scaling_configuration",
    "storage_type",
    "vpc_security_group_ids",
}


# AWS knows this filter; moto takes filters from its own class.
DBCluster.SUPPORTED_FILTERS["db-cluster-resource-id"] = FilterDef(["db_cluster_resource_id"], "DB Cluster Resource Ids")


class Cluster(DBCluster):
    """A cluster; ``volume`` is its data's server while no instance runs it."""

    backend: Core

    def __init__(self, backend: Core, **settings: Any) -> None:
        self.emulator = backend.emulator
        self._state = "creating"
        rules.security_groups(backend, settings.get("vpc_security_group_ids"))
        super().__init__(backend, **settings)
        self._state = "creating"
        if not self.vpc_security_group_ids:
            ec2 = ec2_backends[self.account_id][self.region]
            self.vpc_security_group_ids = [ec2.get_default_security_group(ec2.default_vpc.id).id]
        self.parameter_group = settings.get("db_cluster_parameter_group_name") or default_group(self.engine, backend)
        self.kms_key_id = settings.get("kms_key_id")
        self.turn = threading.RLock()
        self.pending: dict[str, Any] = {}
        self.volume: Server = self.emulator.server(self, self.region, self.db_cluster_resource_id)
        self.archive = self.emulator.archive(self.region, self.db_cluster_resource_id)
        self.enable_performance_insights = bool(settings.get("enable_performance_insights"))
        self.performance_insights_kms_key_id = settings.get("performance_insights_kms_key_id")
        self.performance_insights_retention_period = settings.get("performance_insights_retention_period")
        self.monitoring_interval = settings.get("monitoring_interval") or 0
        self.monitoring_role_arn = settings.get("monitoring_role_arn")
        self.manage_master_user_password = False

    @property
    def status(self) -> str:
        return self._state

    @status.setter
    def status(self, value: str) -> None:
        self._state = value

    @property
    def is_multi_az_cluster(self) -> bool:
        """Not Aurora: three instances that the cluster makes itself."""
        return self.engine == "postgres"

    # --- what DescribeDBClusters shows -------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        return self.emulator.address(self.region, self.db_cluster_identifier, "cluster")

    @property
    def reader_endpoint(self) -> str:
        return self.emulator.address(self.region, self.db_cluster_identifier, "cluster-ro")

    @property
    def multi_az(self) -> bool:
        return len({member.availability_zone for member in self._members}) > 1

    @property
    def window(self) -> Window:
        return window(self.archive, self.server.running, self.emulator.restorable_lag)

    @property
    def earliest_restorable_time(self) -> Optional[datetime]:
        return self.window[0]

    @earliest_restorable_time.setter
    def earliest_restorable_time(self, value: datetime) -> None:
        """moto sets it to the time of creation."""

    @property
    def latest_restorable_time(self) -> Optional[datetime]:
        return self.window[1]

    @property
    def performance_insights_enabled(self) -> bool:
        return self.enable_performance_insights

    @property
    def db_cluster_members(self) -> list[dict[str, Any]]:
        return [
            {
                "DBInstanceIdentifier": member.db_instance_identifier,
                "IsClusterWriter": member.is_cluster_writer,
                "DBClusterParameterGroupStatus": member.parameter_status,
                "PromotionTier": member.promotion_tier,
            }
            for member in self.all_members
        ]

    @property
    def pending_modified_values(self) -> dict[str, Any]:
        shown = {DEFERRED[name]: value for name, value in self.pending.items() if name in DEFERRED}
        return {**shown, **({"MasterUserPassword": "****"} if "master_user_password" in self.pending else {})}

    # --- members -----------------------------------------------------------------------------------------------------

    @property
    def all_members(self) -> list[Member]:
        return list(self._members)

    def designate_writer(self) -> None:
        """The writer is known from the servers; moto would choose one."""

    @property
    def server(self) -> Server:
        """The one that holds the data: the writer's, or the volume."""
        writer = self.writer
        return writer.server if isinstance(writer, Member) else self.volume

    @property
    def readers(self) -> list[Member]:
        found = [member for member in self.all_members if not member.is_cluster_writer and not member.leaving]
        return sorted(found, key=lambda member: member.promotion_tier)

    @property
    def parameters(self) -> Any:
        return self.backend.db_cluster_parameter_groups[self.parameter_group]

    def install(self, make: Callable[[], None]) -> None:
        """Let ``make`` fill the volume, and take the first backup of it."""
        self.volume.archive, self.volume.port = self.archive, self.port
        self.volume.parameters = server_settings(self.parameters)
        self.emulator.programs.directory(self.volume.home)
        make()
        self.archive.add_base(self.volume)
        self.rest()
        self.backend.tell(self, "DB cluster created", "creation")

    def rest(self) -> None:
        """Stop the volume; everything in it is in the archive."""
        self.volume.archive_now()
        self.volume.stop()

    def configure_servers(self) -> None:
        """Addresses of all members: the endpoints move with the roles."""
        for member in self.all_members:
            member.configure_server()

    def restart_servers(self) -> None:
        """The writer first; the readers follow it. None shows available while its server is down."""
        members = [member for member in self.all_members if not member.leaving and member.server.data.exists()]
        before = [(member, member.status) for member in members]
        for member in members:
            member.status = "rebooting"
        for member in sorted(members, key=lambda member: not member.is_cluster_writer):
            member.restart_server()
        for member, status in before:
            member.status = status

    def failover(self, target_instance: Any) -> None:
        """Make a reader the writer. The old one stops cleanly first, so that it can follow without losing a row."""
        if self.emulator.faults.happens("failover-ignored"):
            return
        old = self.writer
        assert isinstance(old, Member)
        self.backend.tell(self, f"Started failover to DB instance: {target_instance.resource_id}", "failover")
        old.server.stop()
        target_instance.server.promote()
        with self.emulator.lock:
            old.is_cluster_writer, target_instance.is_cluster_writer = False, True
        for reader in self.readers:
            reader.server.follow(target_instance.server)
        self.restart_servers()
        self.backend.tell(self, f"Completed failover to DB instance: {target_instance.resource_id}", "failover")

    def modify(self, changes: dict[str, Any]) -> list[Step]:
        steps: list[Step] = []
        identifier = changes.pop("db_cluster_identifier", None)
        if changes:
            steps.append(("modifying", lambda: self._apply(changes)))
        if "master_user_password" in changes:
            steps.append(("resetting-master-credentials", None))
        if identifier:
            steps.append(("renaming", lambda: self._rename(identifier)))
        return steps

    def _apply(self, changes: Mapping[str, Any]) -> None:
        if password := changes.get("master_user_password"):
            self.server.set_password(str(self.master_username), password)
        names = {"db_cluster_parameter_group_name": "parameter_group", "enable_iam_database_authentication": "iam_auth"}
        with self.emulator.lock:
            for name, value in changes.items():
                if name != "master_user_password":
                    setattr(self, names.get(name, name), value)
                self.pending.pop(name, None)
            if "db_cluster_parameter_group_name" in changes:
                for member in self.all_members:
                    member.parameter_status = "pending-reboot"
        if "port" in changes:
            for member in self.all_members:
                member.port = self.port
            self.restart_servers()

    def _rename(self, identifier: str) -> None:
        """The old endpoints stop answering at once; members reboot to answer at the new ones."""
        with self.emulator.lock:
            members = self.all_members
            del self.backend.clusters[self.db_cluster_identifier]
            self.db_cluster_identifier = identifier
            self.backend.clusters[identifier] = self
            for member in members:
                member.db_cluster_identifier = self.db_cluster_identifier
            self.pending.pop("db_cluster_identifier", None)
        self.restart_servers()

    def remove(self) -> None:
        self.emulator.forget(self.volume)
        self.archive.delete()
        with self.emulator.lock:
            self.backend.clusters.pop(self.db_cluster_identifier, None)
        self.backend.tell(self, "DB cluster deleted", "deletion")


class Member(Instance, DBInstanceClustered):
    """An instance of a cluster: the writer or a reader."""

    cluster: Cluster
    leaving = False  # its server is gone, or about to go

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.joined = threading.Event()

    def _make_server(self) -> Server:
        return self.emulator.server(self, self.region, self.dbi_resource_id)

    def _set_option_group(self, name: Optional[str]) -> None:
        """A member has its cluster's."""

    def ensure_backups(self) -> None:
        """Backups are the cluster's."""

    @property
    def parameter_groups(self) -> list[Any]:
        return [self.cluster.parameters, *self.db_parameter_groups()]

    def configure_server(self) -> None:
        """The writer answers at the cluster's endpoint too, the first reader (or the lone writer) at the readers'."""
        cluster = self.cluster
        self.server.addresses = [self.address]
        if self.is_cluster_writer:
            self.server.addresses.append(cluster.endpoint)
        first_reader = cluster.readers[0] if cluster.readers else self
        if first_reader is self:
            self.server.addresses.append(cluster.reader_endpoint)
        self.server.port = self.port or cluster.port
        self.server.archive = cluster.archive
        self.server.parameters = server_settings(*self.parameter_groups)

    def join(self) -> None:
        """Take over the cluster's volume as its writer, or stream from the writer as a reader."""
        writer = self.cluster.writer
        # A reader that is made at the same time as its writer may come first.
        if not self.is_cluster_writer and isinstance(writer, Member) and not writer.joined.wait(300):
            raise PostgresError(f"the writer of {self.cluster.arn} does not come")
        with self.cluster.turn:
            if self.is_cluster_writer:
                self.emulator.forget(self.server)
                self.server, self.server.owner = self.cluster.volume, self
                self.configure_server()
                self.server.configure()
                self.server.start()
            else:
                was_alone = self.cluster.readers == [self]
                if was_alone:  # the readers' endpoint moves here from the writer
                    self.cluster.writer.restart_server()
                self.configure_server()
                self.server.stream_from(self.cluster.server)
        self.joined.set()
        self.backend.tell(self, "DB instance created", "creation")

    def remove(self) -> None:
        """A deleted writer hands over to a reader; the data of the last instance stays as the cluster's volume."""
        cluster = self.cluster
        with cluster.turn:
            if self.db_instance_identifier not in self.backend.databases:
                return  # it went with its cluster meanwhile
            if self.is_cluster_writer and cluster.readers:
                cluster.failover(cluster.readers[0])
            if self.is_cluster_writer:
                cluster.volume = self.server
                self.server.owner, self.server.addresses = cluster, []
                cluster.rest()
                with self.emulator.lock:
                    self.backend.databases.pop(self.db_instance_identifier, None)
            else:
                self.leaving = True
                self.emulator.forget(self.server)
                cluster.restart_servers()  # the readers' endpoint may move
                super().remove()


class ClusterSnapshot(DBClusterSnapshot):
    """A snapshot of a cluster; ``data`` is a base backup."""

    backend: Core

    def __init__(self, backend: Core, cluster: Any, snapshot_id: str, **settings: Any) -> None:
        super().__init__(backend=backend, cluster=cluster, snapshot_id=snapshot_id, **settings)
        self.turn = threading.RLock()
        self.status = "creating"
        self.percent_progress = 0
        self.data: Path = backend.emulator.state / backend.region / "snapshots" / uuid.uuid4().hex[:8]
        self.source_db_cluster_snapshot_arn: Optional[str] = None
        for name in (*INHERITED, "db_cluster_resource_id", "availability_zones", "license_model"):
            if name != "kms_key_id":
                setattr(self, name, getattr(cluster, name))
        self.storage_encrypted = self.kms_key_id is not None
        self.encrypted = self.storage_encrypted


class Clusters(Core):
    """The actions on DB clusters."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        for engine in ("aurora-postgresql", "postgres"):
            name = default_group(engine, self)
            family = name.removeprefix("default.")
            self.db_cluster_parameter_groups[name] = DBClusterParameterGroup(
                self, name, f"Default cluster parameter group for {family}", family
            )

    def _cluster(self, identifier: str) -> Cluster:
        found = self.describe_db_clusters(identifier)[0]
        assert isinstance(found, Cluster)
        return found

    def _free_cluster_name(self, identifier: str) -> None:
        self._validate_db_identifier(identifier)
        if identifier in self.clusters:
            raise rules.Refused("DBClusterAlreadyExistsFault", f"DB Cluster {identifier} already exists")

    def add_cluster(self, settings: Mapping[str, Any]) -> Cluster:
        """A cluster in status creating; nothing happens to its data yet."""
        self._free_cluster_name(settings["db_cluster_identifier"])
        given = {name: value for name, value in settings.items() if value is not None}
        group = given.get("db_cluster_parameter_group_name")
        if group and group not in self.db_cluster_parameter_groups:
            raise DBClusterParameterGroupNotFoundError(group)
        given["engine_version"] = rules.engine_version(
            given.get("engine_version"), self.emulator.programs.version, given["engine"]
        )
        given["master_user_password"] = given.get("master_user_password") or "not kept here"
        cluster = Cluster(self, **given)
        self.clusters[cluster.db_cluster_identifier] = cluster
        return cluster

    def create_db_cluster(self, kwargs: Mapping[str, Any]) -> Any:
        settings = dict(kwargs)
        master, password = settings.get("master_username"), settings.get("master_user_password")
        if not master or not password or len(password) < 8:
            raise rules.parameter_value("MasterUsername and a MasterUserPassword of 8 characters must be provided.")
        if settings.get("storage_encrypted"):
            settings["kms_key_id"] = rules.key_of_region(self, settings.get("kms_key_id")) or self.default_key()
        cluster = self.add_cluster(settings)
        self._install(cluster, lambda: cluster.volume.initialise(master, password, cluster.database_name), "failed")
        return cluster

    def _install(self, cluster: Cluster, make: Callable[[], None], failed: str) -> None:
        """Fill the cluster; a Multi-AZ cluster makes its three instances then."""

        def install() -> None:
            if failed == "incompatible-restore" and fails:
                raise PostgresError("the restore fails as the test asked")
            cluster.install(make)

        fails = failed == "incompatible-restore" and self.emulator.faults.happens("incompatible-restore")
        steps: list[Step] = [("creating", install)]
        if cluster.is_multi_az_cluster:
            steps.append(("creating", lambda: self._make_three(cluster)))
        self.emulator.work(cluster, [*steps, ("backing-up", None)], failed=failed)

    def _make_three(self, cluster: Cluster) -> None:
        for number, zone in enumerate("abc", 1):
            with self.emulator.lock:
                member = self._add_member(
                    cluster,
                    {
                        "db_instance_identifier": f"{cluster.db_cluster_identifier}-instance-{number}",
                        "db_instance_class": cluster.db_cluster_instance_class or "db.m6gd.large",
                        "availability_zone": f"{self.region}{zone}",
                    },
                )
            member.join()
            member.status = "available"

    def _add_member(self, cluster: Cluster, settings: Mapping[str, Any]) -> Member:
        self._new_identifier(settings["db_instance_identifier"])
        zones = [f"{self.region}{zone}" for zone in "abc"]
        given = {
            "engine": cluster.engine,
            "port": cluster.port,
            "availability_zone": zones[len(cluster.all_members) % 3],
            "db_subnet_group_name": cluster.db_subnet_group_name,
            **{name: value for name, value in settings.items() if value is not None},
        }
        given["db_cluster_identifier"] = cluster.db_cluster_identifier
        member = Member(self, **given)
        member.is_cluster_writer = not cluster.all_members
        self.databases[member.db_instance_identifier] = member
        return member

    def create_cluster_member(self, settings: Mapping[str, Any]) -> Any:
        """CreateDBInstance with DBClusterIdentifier, once the cluster is available: it gets the cluster's data."""
        identifier = settings["db_cluster_identifier"]
        if identifier not in self.clusters:
            raise DBClusterNotFoundError(identifier)
        cluster = self._cluster(identifier)
        rules.cluster_state(cluster)
        if settings.get("engine") != cluster.engine:
            raise InvalidDBInstanceEngine(str(settings.get("engine")), cluster.engine)
        if settings.get("master_username") or settings.get("backup_retention_period"):
            raise rules.parameter_combination("MasterUsername and BackupRetentionPeriod belong to the DB cluster.")
        member = self._add_member(cluster, settings)
        self.emulator.work(member, [("creating", member.join), ("configuring-log-exports", None)])
        return member

    def failover_db_cluster(
        self, db_cluster_identifier: str, target_db_instance_identifier: Optional[str] = None
    ) -> Any:
        cluster = self._cluster(db_cluster_identifier)
        rules.cluster_state(cluster)
        ready = [member for member in cluster.readers if member.status == "available"]
        if not ready:
            raise rules.Refused(
                "InvalidDBClusterStateFault",
                f"Database cluster:{db_cluster_identifier} should have at least two database instances for failover",
            )
        target = ready[0]
        if target_db_instance_identifier:
            named = [member for member in ready if member.resource_id == target_db_instance_identifier.lower()]
            if not named:
                raise rules.Refused(
                    "InvalidDBInstanceState", f"{target_db_instance_identifier} is no reader that could take over."
                )
            target = named[0]
        cluster.status = "failing-over"
        self.emulator.work(cluster, [("failing-over", lambda: cluster.failover(target))])
        return cluster

    def modify_db_cluster(self, kwargs: Mapping[str, Any]) -> Any:
        arguments = dict(kwargs)
        cluster = self._cluster(arguments["db_cluster_identifier"])
        rules.cluster_state(cluster)
        now = bool(arguments.get("apply_immediately"))
        asked = {name: arguments[name] for name in QUIET | ASYNCHRONOUS if arguments.get(name) is not None}
        if new_name := arguments.get("new_db_cluster_identifier"):
            asked["db_cluster_identifier"] = new_name.lower()
        if exports := arguments.get("cloudwatch_logs_export_configuration"):
            present = set(cluster.enabled_cloudwatch_logs_exports) | set(exports.get("enable_log_types") or [])
            asked["enabled_cloudwatch_logs_exports"] = sorted(present - set(exports.get("disable_log_types") or []))
        if asked.get("backup_retention_period") == 0:
            raise rules.parameter_value("BackupRetentionPeriod of a DB cluster must be from 1 to 35.")
        rules.security_groups(self, asked.get("vpc_security_group_ids"))
        group = asked.get("db_cluster_parameter_group_name", cluster.parameter_group)
        if group not in self.db_cluster_parameter_groups:
            raise DBClusterParameterGroupNotFoundError(group)
        names = {"db_cluster_parameter_group_name": "parameter_group", "enable_iam_database_authentication": "iam_auth"}
        changes = {
            name: value
            for name, value in asked.items()
            if name == "master_user_password" or value != getattr(cluster, names.get(name, name), None)
        }
        if "db_cluster_identifier" in changes:
            self._free_cluster_name(changes["db_cluster_identifier"])
        deferred = {} if now else {name: value for name, value in changes.items() if name in DEFERRED}
        if now:
            changes = {**{name: value for name, value in cluster.pending.items() if name in DEFERRED}, **changes}
        for name in QUIET & changes.keys():
            setattr(cluster, name, changes.pop(name))
        cluster.pending.update(changes)
        work = {name: value for name, value in changes.items() if name not in deferred}
        if work:
            self.emulator.work(cluster, [("available", None), *cluster.modify(work)])
        return cluster

    def delete_db_cluster(
        self, cluster_identifier: str, snapshot_name: Optional[str] = None, skip: Optional[bool] = None
    ) -> Any:
        cluster = self._cluster(cluster_identifier)
        if cluster.deletion_protection:
            raise rules.parameter_combination(
                "Cannot delete protected Cluster, please disable deletion protection and try again."
            )
        if not cluster.is_multi_az_cluster and any(member.status != "deleting" for member in cluster.all_members):
            raise DBClusterToBeDeletedHasActiveMembers()
        rules.final_snapshot(skip, snapshot_name)
        steps: list[Step] = []
        if snapshot_name:
            snapshot = self._add_cluster_snapshot(cluster, snapshot_name)
            steps.append(("deleting", lambda: self._fill_cluster_snapshot(snapshot, cluster)))

        def remove() -> None:
            for member in sorted(cluster.all_members, key=lambda member: member.is_cluster_writer):
                member.remove()  # also those whose own deletion waits for the cluster's turn
            cluster.remove()

        cluster.status = "deleting"
        self.emulator.work(cluster, [*steps, ("deleting", remove)], last="deleting")
        return cluster

    # --- snapshots and restores --------------------------------------------------------------------------------------

    def _cluster_snapshot(self, identifier: str) -> ClusterSnapshot:
        found = self.get_db_cluster_snapshot(identifier)
        assert isinstance(found, ClusterSnapshot)
        return found

    def _add_cluster_snapshot(
        self, cluster: Cluster, identifier: str, tags: Optional[list[Any]] = None
    ) -> ClusterSnapshot:
        if identifier in self.cluster_snapshots:
            raise DBClusterSnapshotAlreadyExistsError(identifier)
        snapshot = ClusterSnapshot(self, cluster, identifier, tags=tags)
        self.cluster_snapshots[snapshot.db_cluster_snapshot_identifier] = snapshot
        return snapshot

    def _fill_cluster_snapshot(self, snapshot: ClusterSnapshot, cluster: Cluster) -> None:
        if self.emulator.faults.happens("snapshot-failed"):
            raise PostgresError("the snapshot fails as the test asked")
        with cluster.turn:
            if cluster.server.running:
                cluster.server.base_backup(snapshot.data)
            else:
                self.emulator.programs.copy(cluster.server.data, snapshot.data)
        self._finish(snapshot)

    @staticmethod
    def _finish(snapshot: ClusterSnapshot) -> None:
        snapshot.percent_progress = 100
        snapshot.created = utcnow()
        snapshot.status = "available"

    def create_db_cluster_snapshot(
        self,
        db_cluster_identifier: str,
        db_cluster_snapshot_identifier: str,
        tags: Optional[list[Any]] = None,
        **_: Any,
    ) -> Any:
        cluster = self._cluster(db_cluster_identifier)
        rules.cluster_state(cluster)
        snapshot = self._add_cluster_snapshot(cluster, db_cluster_snapshot_identifier, tags)
        self.emulator.work(snapshot, [("creating", lambda: self._fill_cluster_snapshot(snapshot, cluster))])
        return snapshot

    def copy_db_cluster_snapshot(
        self,
        source_db_cluster_snapshot_identifier: str,
        target_db_cluster_snapshot_identifier: str,
        kms_key_id: Optional[str] = None,
        copy_tags: Optional[bool] = False,
        tags: Optional[list[Any]] = None,
        **_: Any,
    ) -> Any:
        """Called in the destination region with the source's ARN; an encrypted one wants a key of this region."""
        if target_db_cluster_snapshot_identifier in self.cluster_snapshots:
            raise DBClusterSnapshotAlreadyExistsError(target_db_cluster_snapshot_identifier)
        source = self._cluster_snapshot(source_db_cluster_snapshot_identifier)
        if source.region in self.emulator.faults.lost:
            raise DBClusterSnapshotNotFoundError(source_db_cluster_snapshot_identifier)
        rules.snapshot_state(source, "InvalidDBClusterSnapshotStateFault")
        key = rules.key_of_region(self, kms_key_id)
        if source.region != self.region and source.encrypted and key is None:
            raise KMSKeyNotAccessibleFault(str(source.kms_key_id))
        target = ClusterSnapshot(
            self,
            source.cluster,
            target_db_cluster_snapshot_identifier,
            tags=(source.tags if copy_tags and not tags else tags) or [],
            kms_key_id=key or source.kms_key_id,
        )
        target.source_db_cluster_snapshot_arn = source.arn
        self.cluster_snapshots[target.db_cluster_snapshot_identifier] = target

        def copy() -> None:
            if self.emulator.faults.happens("snapshot-failed"):
                raise PostgresError("the snapshot fails as the test asked")
            self.emulator.programs.copy(source.data, target.data)
            self._finish(target)

        self.emulator.work(target, [("creating", None), ("copying", copy)])
        return target

    def delete_db_cluster_snapshot(self, db_snapshot_identifier: str) -> Any:
        snapshot = self._cluster_snapshot(db_snapshot_identifier)
        if snapshot.status not in ("available", "failed"):
            rules.snapshot_state(snapshot, "InvalidDBClusterSnapshotStateFault")
        del self.cluster_snapshots[snapshot.db_cluster_snapshot_identifier]
        shutil.rmtree(snapshot.data, ignore_errors=True)
        return snapshot

    def _restored(self, source: Any, arguments: Mapping[str, Any]) -> Cluster:
        """A cluster with AWS's defaults except for what it has of its source and what the call says."""
        settings = {name: getattr(source, name) for name in INHERITED}
        given = {name: value for name, value in arguments.items() if value is not None}
        given.pop("engine_version", None)
        if settings["engine"] != "postgres" and (
            given.get("enable_performance_insights") or given.get("monitoring_interval")
        ):
            raise rules.parameter_combination(
                "You can enable Performance Insights or set the Enhanced Monitoring interval only when restoring from "
                "a source Aurora Limitless DB cluster."
            )
        if "kms_key_id" in given:
            given["kms_key_id"], given["storage_encrypted"] = rules.key_of_region(self, given["kms_key_id"]), True
        return self.add_cluster({**settings, **given})

    def restore_db_cluster_to_point_in_time(
        self,
        db_cluster_identifier: str,
        source_db_cluster_identifier: Optional[str] = None,
        restore_type: str = "full-copy",
        **arguments: Any,
    ) -> Any:
        """A cluster without instances (Aurora), to a time or, as a clone (copy-on-write), to now."""
        self._free_cluster_name(db_cluster_identifier)
        source = self._cluster(str(source_db_cluster_identifier or arguments.get("source_db_cluster_resource_id")))
        if restore_type == "copy-on-write" and arguments.get("restore_to_time"):
            raise rules.parameter_combination("RestoreToTime cannot be specified when RestoreType is copy-on-write")
        moment = rules.restore_moment(arguments, source.window, "restore_to_time")
        cluster = self._restored(source, {**arguments, "db_cluster_identifier": db_cluster_identifier})

        def recover() -> None:
            with source.turn:
                if source.server.running:
                    source.server.archive_now()
            cluster.volume.recover(source.archive, moment)

        self._install(cluster, recover, "incompatible-restore")
        return cluster

    def restore_db_cluster_from_snapshot(self, from_snapshot_id: str, overrides: Mapping[str, Any]) -> Any:
        arguments = dict(overrides)
        self._free_cluster_name(arguments["db_cluster_identifier"])
        snapshot = self._cluster_snapshot(from_snapshot_id)
        rules.snapshot_state(snapshot, "InvalidDBClusterSnapshotStateFault")
        cluster = self._restored(snapshot, arguments)
        self._install(cluster, lambda: cluster.volume.clone(snapshot.data), "incompatible-restore")
        return cluster


def default_group(engine: str, backend: Core) -> str:
    return f"default.{engine}{backend.emulator.programs.major}"
