"""DB instances: create, modify, rename, reboot, fail over, replicate, delete."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Optional

from moto.moto_api._internal import mock_random
from moto.rds.exceptions import (
    DBInstanceAlreadyExists,
    DBInstanceNotFoundError,
    DBParameterGroupNotFoundError,
    OptionGroupNotFoundFaultError,
)
from moto.rds.models import DBInstance

from . import rules
from .backups import AutomatedBackup
from .core import Core
from .emulator import Step
from .parameters import server_settings
from .postgres import Server

# Changes that show no status: they hold when the call returns.
QUIET = {
    "auto_minor_version_upgrade",
    "copy_tags_to_snapshot",
    "deletion_protection",
    "max_allocated_storage",
    "preferred_backup_window",
    "preferred_maintenance_window",
    "promotion_tier",
}
# Changes that wait for the maintenance window unless ApplyImmediately: our name -> AWS's in PendingModifiedValues.
DEFERRED = {
    "allocated_storage": "AllocatedStorage",
    "backup_retention_period": "BackupRetentionPeriod",
    "db_instance_class": "DBInstanceClass",
    "db_instance_identifier": "DBInstanceIdentifier",
    "engine_version": "EngineVersion",
    "iops": "Iops",
    "multi_az": "MultiAZ",
    "port": "Port",
    "storage_throughput": "StorageThroughput",
    "storage_type": "StorageType",
}
# Everything else that ModifyDBInstance can change: it is applied as soon as possible, with status modifying.
ASYNCHRONOUS = {
    "ca_certificate_identifier",
    "database_insights_mode",
    "db_parameter_group_name",
    "db_subnet_group_name",
    "enable_customer_owned_ip",
    "enable_iam_database_authentication",
    "enable_performance_insights",
    "enabled_cloudwatch_logs_exports",
    "master_user_password",
    "monitoring_interval",
    "monitoring_role_arn",
    "network_type",
    "option_group_name",
    "performance_insights_kms_key_id",
    "performance_insights_retention_period",
    "publicly_accessible",
    "vpc_security_group_ids",
}
# What a restored instance or replica has of its source; everything else is AWS's default unless the call says it.
INHERITED = (
    "allocated_storage",
    "backup_retention_period",
    "character_set_name",
    "db_instance_class",
    "db_name",
    "engine",
    "engine_version",
    "iops",
    "kms_key_id",
    "license_model",
    "master_username",
    "port",
    "preferred_backup_window",
    "storage_encrypted",
    "storage_throughput",
    "storage_type",
)


class Instance(DBInstance):
    """A DB instance whose server is real."""

    backend: Core

    def __init__(self, backend: Core, **settings: Any) -> None:
        self.emulator = backend.emulator
        option_group = settings.pop("option_group_name", None)
        interval, role = settings.pop("monitoring_interval", 0), settings.pop("monitoring_role_arn", None)
        if bool(interval) != bool(role):
            raise rules.parameter_combination("MonitoringInterval and MonitoringRoleARN must be specified together.")
        rules.security_groups(backend, settings.get("vpc_security_group_ids"))
        settings["db_subnet_group_name"] = settings.get("db_subnet_group_name") or "default"
        super().__init__(backend=backend, **settings)
        self.status = "creating"
        self.turn = threading.RLock()
        self.monitoring_interval, self.monitoring_role_arn = interval or 0, role
        self.enable_performance_insights = bool(settings.get("enable_performance_insights"))
        self.performance_insights_kms_key_id = settings.get("performance_insights_kms_key_id")
        self.performance_insights_retention_period = settings.get("performance_insights_retention_period") or (
            7 if self.enable_performance_insights else None
        )
        self.database_insights_mode = settings.get("database_insights_mode") or "standard"
        self.network_type = settings.get("network_type") or "IPV4"
        self.dbi_resource_id = f"db-{mock_random.get_random_string(26, include_digits=True).upper()}"
        self.publicly_accessible = bool(settings.get("publicly_accessible"))
        self.pending: dict[str, Any] = {}
        self.read_replica_source: Optional[Instance] = None
        self.parameter_status = "in-sync"
        self.backup: Optional[AutomatedBackup] = None
        self.server = self._make_server()
        self.other_zone = f"{self.region}b" if self.availability_zone.endswith("a") else f"{self.region}a"
        self._set_option_group(option_group)

    def _make_server(self) -> Server:
        return self.emulator.server(self, self.region, self.dbi_resource_id)

    def _set_option_group(self, name: Optional[str]) -> None:
        default = f"default:{self.engine}-{self.engine_version.split('.')[0]}"
        if name and name != default and name not in self.backend.option_groups:
            raise OptionGroupNotFoundFaultError(name)
        self.option_group_name = name or default

    # --- what DescribeDBInstances shows ------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Follows the identifier, as the DNS name does."""
        return self.emulator.address(self.region, self.db_instance_identifier)

    @property
    def endpoint(self) -> Optional[dict[str, Any]]:
        """Absent until the instance has been created."""
        return None if self.status == "creating" else {"Address": self.address, "Port": self.port}

    @property
    def secondary_availability_zone(self) -> Optional[str]:
        return self.other_zone if self.multi_az else None

    @property
    def performance_insights_enabled(self) -> bool:
        return self.enable_performance_insights

    @property
    def enhanced_monitoring_resource_arn(self) -> Optional[str]:
        if not self.monitoring_interval:
            return None
        return f"arn:aws:logs:{self.region}:{self.account_id}:log-group:RDSOSMetrics:log-stream:{self.dbi_resource_id}"

    @property
    def pending_modified_values(self) -> dict[str, Any]:
        shown = {DEFERRED[name]: value for name, value in self.pending.items() if name in DEFERRED}
        return {**shown, **({"MasterUserPassword": "****"} if "master_user_password" in self.pending else {})}

    @property
    def db_parameter_group_status_list(self) -> list[dict[str, str]]:
        name = self.db_parameter_groups()[0].name
        return [{"DBParameterGroupName": name, "ParameterApplyStatus": self.parameter_status}]

    @property
    def latest_restorable_time(self) -> Optional[datetime]:
        return self.backup.window[1] if self.backup else None

    @property
    def read_replica_source_db_instance_identifier(self) -> Optional[str]:
        source = self.read_replica_source
        if source is None:
            return None
        return source.db_instance_identifier if source.region == self.region else source.arn

    @property
    def replica_instances(self) -> list[Instance]:
        """In all regions; they belong to the instance, not to its name."""
        return [other for other in self.backend.all_instances() if other.read_replica_source is self]

    @property
    def read_replica_db_instance_identifiers(self) -> list[str]:
        return [
            other.db_instance_identifier if other.region == self.region else other.arn
            for other in self.replica_instances
        ]

    @property
    def status_infos(self) -> list[dict[str, Any]]:
        if self.read_replica_source is None:
            return []
        return [{"StatusType": "read replication", "Normal": True, "Status": "replicating"}]

    @property
    def db_instance_automated_backups_replications(self) -> list[dict[str, str]]:
        return self.backup.replications if self.backup else []

    # --- work --------------------------------------------------------------------------------------------------------

    def configure_server(self) -> None:
        """Bring the server's settings into line; they hold after a restart."""
        self.server.addresses = [self.address]
        self.server.port = self.port or 5432
        self.server.archive = self.backup.archive if self.backup else None
        self.server.parameters = server_settings(*self.parameter_groups)

    @property
    def parameter_groups(self) -> list[Any]:
        return self.db_parameter_groups()

    def restart_server(self) -> None:
        self.configure_server()
        self.server.restart()
        self.parameter_status = "in-sync"

    def ensure_backups(self) -> None:
        """Automated backups are on while the retention is not 0."""
        if self.backup is None and self.backup_retention_period and not self.read_replica_source:
            self.backup = AutomatedBackup(self.backend, self)
        elif self.backup and not self.backup_retention_period:
            self.backup.delete()
            self.backup = None

    def first_backup(self) -> list[Step]:
        """The status backing-up that follows a creation or restore."""
        return [("backing-up", self.take_backup)] if self.backup else []

    def take_backup(self) -> None:
        assert self.backup
        self.backup.archive.add_base(self.server)
        self.backend.save_automated_snapshot(self)

    def install(self, make: Any) -> None:
        """Let ``make`` fill the server, configured for this instance, while the status is creating."""
        self.ensure_backups()
        self.configure_server()
        self.emulator.programs.directory(self.server.home)
        make()
        self.backend.tell(self, "DB instance created", "creation")

    def modify(self, changes: dict[str, Any]) -> list[Step]:
        """The steps that apply these changes for real."""
        steps: list[Step] = []
        identifier = changes.pop("db_instance_identifier", None)
        if changes:
            steps.append(("modifying", lambda: self._apply(changes)))
        if "master_user_password" in changes:
            steps.append(("resetting-master-credentials", None))
        if self.backup_retention_period == 0 and changes.get("backup_retention_period"):
            steps.append(("backing-up", self.take_backup))
        if identifier:
            steps += [("renaming", lambda: self._rename(identifier)), ("rebooting", self.restart_server)]
        return steps

    def _apply(self, changes: Mapping[str, Any]) -> None:
        restart = "port" in changes or not self.server.running
        password = changes.get("master_user_password")
        if password:
            self.server.set_password(str(self.master_username), password)
        with self.emulator.lock:
            for name, value in changes.items():
                setattr(self, name, value)
                self.pending.pop(name, None)
            if "backup_retention_period" in changes:
                self.ensure_backups()
        if "backup_retention_period" in changes:
            self.server.archive = self.backup.archive if self.backup else None
            self.server.configure()
            self.server.reload()
        if restart:
            self.restart_server()
        if "port" in changes:  # it is in the name of the socket that replicas stream from
            for replica in self.replica_instances:
                replica.server.follow(self.server)
                replica.server.restart()

    def _rename(self, identifier: str) -> None:
        """The old name stops answering at once; the new one answers after the reboot."""
        self.server.stop()
        with self.emulator.lock:
            del self.backend.databases[self.db_instance_identifier]
            self.db_instance_identifier = identifier
            self.backend.databases[identifier] = self
            self.pending.pop("db_instance_identifier", None)
        self.backend.tell(self, "Renamed instance", "notification")

    def fail_over(self) -> None:
        if self.emulator.faults.happens("failover-ignored"):
            return
        self.backend.tell(self, "Multi-AZ instance failover started.", "failover")
        self.restart_server()
        with self.emulator.lock:
            self.availability_zone, self.other_zone = self.other_zone, self.availability_zone
        self.backend.tell(self, "DB instance restarted", "availability")
        self.backend.tell(self, "Multi-AZ instance failover completed.", "failover", "notification")

    def reboot(self) -> None:
        self.restart_server()
        self.backend.tell(self, "DB instance restarted", "availability")

    def promote(self) -> None:
        self.server.promote()
        with self.emulator.lock:
            self.read_replica_source = None
            self.is_replica = False
            self.ensure_backups()
        self.server.archive = self.backup.archive if self.backup else None
        self.server.configure()
        self.server.reload()

    def remove(self) -> None:
        self.emulator.forget(self.server)
        with self.emulator.lock:
            self.backend.databases.pop(self.db_instance_identifier, None)
        self.backend.tell(self, "DB instance deleted", "deletion")


class Instances(Core):
    """The actions on DB instances."""

    def _instance(self, identifier: str) -> Instance:
        found = self.databases.get(identifier)
        if found is None:
            raise DBInstanceNotFoundError(identifier)
        assert isinstance(found, Instance)
        return found

    def _new_identifier(self, identifier: str) -> None:
        self._validate_db_identifier(identifier)
        taken = [*self.databases, *(instance.pending.get("db_instance_identifier") for instance in self.instances)]
        if identifier.lower() in (str(name).lower() for name in taken):
            raise DBInstanceAlreadyExists

    def add_instance(self, settings: Mapping[str, Any]) -> Instance:
        """An instance in status creating; nothing happens to its server yet."""
        self._new_identifier(settings["db_instance_identifier"])
        given = {name: value for name, value in settings.items() if value is not None}
        given["engine_version"] = rules.engine_version(
            given.get("engine_version"), self.emulator.programs.version, given["engine"]
        )
        if given.get("multi_az") and given.get("availability_zone"):
            raise rules.parameter_combination("AvailabilityZone can't be specified for a Multi-AZ DB instance.")
        instance = Instance(self, **given)
        self.databases[instance.db_instance_identifier] = instance
        return instance

    def create_db_instance(self, db_kwargs: Mapping[str, Any]) -> Any:
        settings = dict(db_kwargs)
        if settings.get("db_cluster_identifier"):
            return self.create_cluster_member(settings)
        master, password = settings.get("master_username"), settings.get("master_user_password")
        if not master or not password or len(password) < 8:
            raise rules.parameter_value("MasterUsername and a MasterUserPassword of 8 characters must be provided.")
        if master in ("rdsadmin", "admin") or master.startswith("pg_"):
            raise rules.parameter_value(f"MasterUsername {master} cannot be used as it is a reserved word")
        if settings.get("storage_encrypted"):
            settings["kms_key_id"] = rules.key_of_region(self, settings.get("kms_key_id")) or self.default_key()
        instance = self.add_instance(settings)

        def make() -> None:
            instance.server.initialise(master, password, instance.db_name)

        steps: list[Step] = [("creating", lambda: instance.install(make))]
        if instance.backup_retention_period:
            steps.append(("backing-up", instance.take_backup))
        self.emulator.work(instance, steps)
        return instance

    def modify_db_instance(self, db_instance_identifier: str, db_kwargs: Mapping[str, Any]) -> Any:
        instance = self._instance(db_instance_identifier)
        arguments = dict(db_kwargs)
        rules.instance_state(instance, "available", "storage-full")
        now = bool(arguments.get("apply_immediately"))
        changes = self._changes(instance, arguments)
        deferred = {} if now else {name: value for name, value in changes.items() if name in DEFERRED}
        if not now and instance.backup_retention_period and changes.get("backup_retention_period"):
            deferred.pop("backup_retention_period", None)  # from not 0 to not 0: as soon as possible
        if now:
            changes = {**{name: value for name, value in instance.pending.items() if name in DEFERRED}, **changes}
        for name in QUIET & changes.keys():
            setattr(instance, name, changes.pop(name))
        instance.pending.update(changes)
        work = {name: value for name, value in changes.items() if name not in deferred}
        if "db_parameter_group_name" in work:
            instance.db_parameter_group_name = work.pop("db_parameter_group_name")
            instance.parameter_status = "pending-reboot"
            instance.pending.pop("db_parameter_group_name")
        if work:
            # AWS answers, and shows the old status for a moment, before it begins.
            self.emulator.work(instance, [(instance.status, None), *instance.modify(work)])
        return instance

    def _changes(self, instance: Instance, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the call asks for and is not so already."""
        renamed = {"new_db_instance_identifier": "db_instance_identifier", "db_port_number": "port"}
        asked = {renamed[name]: arguments[name] for name in renamed if arguments.get(name) is not None}
        known = QUIET | ASYNCHRONOUS | (DEFERRED.keys() - {"db_instance_identifier", "port"})
        asked.update({name: arguments[name] for name in known if arguments.get(name) is not None})
        if exports := arguments.get("cloudwatch_logs_export_configuration"):
            present = set(instance.enabled_cloudwatch_logs_exports) | set(exports.get("enable_log_types") or [])
            asked["enabled_cloudwatch_logs_exports"] = sorted(present - set(exports.get("disable_log_types") or []))
        changes = {
            name: value
            for name, value in asked.items()
            if name == "master_user_password" or value != getattr(instance, _readable(name), None)
        }
        if "db_instance_identifier" in changes:
            self._new_identifier(changes["db_instance_identifier"])
            changes["db_instance_identifier"] = changes["db_instance_identifier"].lower()
        if "engine_version" in changes:
            rules.engine_version(changes["engine_version"], self.emulator.programs.version, instance.engine)
        if changes.get("db_parameter_group_name", next(iter(self.db_parameter_groups))) not in self.db_parameter_groups:
            raise DBParameterGroupNotFoundError(changes["db_parameter_group_name"])
        rules.security_groups(self, changes.get("vpc_security_group_ids"))
        if changes.get("allocated_storage", instance.allocated_storage) < instance.allocated_storage:
            raise rules.parameter_value("Requested storage size cannot be less than the current storage size.")
        if changes.get("backup_retention_period") == 0 and instance.replica_instances:
            raise rules.Refused("InvalidDBInstanceState", "Automated backups cannot be disabled: it has read replicas.")
        return changes

    def reboot_db_instance(self, db_instance_identifier: str, force_failover: bool = False) -> Any:
        instance = self._instance(db_instance_identifier)
        rules.instance_state(instance)
        if force_failover and not instance.multi_az:
            raise rules.parameter_combination(
                "ForceFailover cannot be specified since the instance is not configured for Multi-AZ."
            )
        instance.status = "rebooting"
        self.emulator.work(instance, [("rebooting", instance.fail_over if force_failover else instance.reboot)])
        return instance

    def stop_db_instance(self, db_instance_identifier: str, db_snapshot_identifier: Optional[str] = None) -> Any:
        instance = self._instance(db_instance_identifier)
        rules.instance_state(instance)
        if instance.read_replica_source or instance.replica_instances:
            raise rules.Refused("InvalidDBInstanceState", "An instance with read replicas, or one, cannot be stopped.")
        instance.status = "stopping"
        steps: list[Step] = []
        if db_snapshot_identifier:
            snapshot = self.add_snapshot(instance, db_snapshot_identifier)
            steps.append(("stopping", lambda: self.fill_snapshot(snapshot, instance)))
        self.emulator.work(instance, [*steps, ("stopping", instance.server.stop)], last="stopped")
        return instance

    def start_db_instance(self, db_instance_identifier: str) -> Any:
        instance = self._instance(db_instance_identifier)
        rules.instance_state(instance, "stopped")
        instance.status = "starting"
        self.emulator.work(instance, [("starting", instance.restart_server)])
        return instance

    def create_db_instance_read_replica(self, db_kwargs: Mapping[str, Any]) -> Any:
        arguments = dict(db_kwargs)
        source = self.find_db_from_id(arguments.pop("source_db_instance_identifier"))
        assert isinstance(source, Instance)
        rules.instance_state(source)
        same_region = source.region == self.region_name
        if source.backup is None and source.read_replica_source is None:
            raise rules.Refused(
                "InvalidDBInstanceState", "Automated backups are not enabled for this database instance."
            )
        if not same_region and source.storage_encrypted and not arguments.get("kms_key_id"):
            raise rules.parameter_combination("KmsKeyId is required for a replica of an encrypted instance elsewhere.")
        settings = {name: getattr(source, name) for name in INHERITED}
        settings["backup_retention_period"] = 0
        if same_region:  # a replica has its source's groups
            settings["db_parameter_group_name"] = source.db_parameter_group_name
            settings["vpc_security_group_ids"] = list(source.vpc_security_group_ids)
        key = rules.key_of_region(self, arguments.get("kms_key_id"))
        replica = self.add_instance({**settings, **arguments, "kms_key_id": key or settings["kms_key_id"]})
        replica.read_replica_source = source
        replica.is_replica = True
        self.emulator.work(
            replica, [("creating", lambda: replica.install(lambda: replica.server.stream_from(source.server)))]
        )
        return replica

    def promote_read_replica(self, db_kwargs: Mapping[str, Any]) -> Any:
        replica = self._instance(db_kwargs["db_instance_identifier"])
        rules.instance_state(replica)
        if replica.read_replica_source is None:
            raise rules.Refused("InvalidDBInstanceState", "DB Instance is not a read replica and cannot be promoted.")
        retention = db_kwargs.get("backup_retention_period")
        replica.backup_retention_period = 1 if retention is None else retention
        if window := db_kwargs.get("preferred_backup_window"):
            replica.preferred_backup_window = window
        steps: list[Step] = [("modifying", replica.promote)]
        if replica.backup_retention_period:
            steps.append(("backing-up", replica.take_backup))
        steps.append(("rebooting", replica.reboot))
        self.emulator.work(replica, [("available", None), *steps])
        return replica

    def delete_db_instance(
        self,
        db_instance_identifier: str,
        final_db_snapshot_identifier: Optional[str] = None,
        skip_final_snapshot: Optional[bool] = False,
        delete_automated_backups: Optional[bool] = True,
    ) -> Any:
        instance = self._instance(db_instance_identifier)
        if instance.status in ("deleting", "creating"):
            rules.instance_state(instance)
        if instance.deletion_protection:
            raise rules.parameter_combination(
                "Cannot delete protected DB Instance, please disable deletion protection and try again."
            )
        if not instance.db_cluster_identifier:
            rules.final_snapshot(skip_final_snapshot, final_db_snapshot_identifier)
        steps: list[Step] = []
        if final_db_snapshot_identifier:
            if instance.read_replica_source:
                raise rules.parameter_combination("A final snapshot cannot be taken of a read replica.")
            snapshot = self.add_snapshot(instance, final_db_snapshot_identifier)
            steps.append(("deleting", lambda: self.fill_snapshot(snapshot, instance)))
        keep = delete_automated_backups is False
        steps.append(("deleting", lambda: self._delete(instance, keep)))
        instance.status = "deleting"
        self.emulator.work(instance, steps, last="deleting")
        return instance

    def _delete(self, instance: Instance, keep_backups: bool) -> None:
        for replica in instance.replica_instances:  # read replicas of a deleted source become instances of their own
            replica.backup_retention_period = 0
            replica.promote()
        if instance.backup and keep_backups and instance.server.running:
            instance.server.archive_now()
        instance.remove()
        with self.emulator.lock:
            if instance.backup:
                instance.backup.source_deleted(keep_backups)
                if not keep_backups:
                    self.delete_automated_snapshots(instance)


def _readable(name: str) -> str:
    """Some of moto's properties can only be written; the attribute behind them can be read."""
    return f"_{name}" if name in ("db_subnet_group_name", "max_allocated_storage") else name
