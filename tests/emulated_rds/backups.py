"""Automated backups: the restorable window, point-in-time restore, retention, replication to another region."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Optional

from moto.moto_api._internal import mock_random
from moto.rds.exceptions import DBInstanceNotFoundError, DBParameterGroupNotFoundError
from moto.rds.models import RDSBaseModel

from . import rules
from .core import Core
from .emulator import Step
from .postgres import Archive, PostgresError, utcnow

if TYPE_CHECKING:
    from .instances import Instance

Window = tuple[Optional[datetime], Optional[datetime]]


def window(archive: Archive, live: bool, lag: timedelta) -> Window:
    """From the end of the first backup to a while ago (AWS: about five minutes), in whole seconds.

    Where no more WAL can come, to the last that came.
    """
    earliest = archive.earliest
    latest = utcnow() - lag if live else archive.archived
    if earliest is None or latest is None or latest < earliest:
        return None, None
    return earliest, latest.replace(microsecond=0)


class AutomatedBackup(RDSBaseModel):
    """The backups of one instance, in its own region (active, retained) or copied to another one (replicating)."""

    resource_type = "auto-backup"
    backend: Core

    def __init__(self, backend: Core, source: Instance, replica_of: Optional[AutomatedBackup] = None) -> None:
        super().__init__(backend)
        self.source, self.replica_of = source, replica_of
        self.name = f"ab-{mock_random.get_random_string(26, include_digits=True).lower()}"
        place = source.dbi_resource_id if replica_of is None else self.name
        self.archive: Archive = backend.emulator.archive(backend.region, place)
        self.status = "active" if replica_of is None else "pending"
        self.retention: Optional[int] = None
        self.kms_key_id = source.kms_key_id
        self.tags = list(source.tags) if replica_of is None else []
        self._identifier: Optional[str] = None
        backend.automated_backups.append(self)

    # --- what DescribeDBInstanceAutomatedBackups shows ---------------------------------------------------------------

    @property
    def resource_id(self) -> str:
        return self.name

    @property
    def db_instance_automated_backups_arn(self) -> str:
        return self.arn

    @property
    def db_instance_arn(self) -> str:
        return str(self.source.arn)

    @property
    def dbi_resource_id(self) -> str:
        return self.source.dbi_resource_id

    @property
    def db_instance_identifier(self) -> str:
        return self.source.db_instance_identifier

    @property
    def region(self) -> str:
        """The source's region, also in the copy."""
        return str(self.source.backend.region_name)

    @property
    def arn(self) -> str:
        return f"arn:aws:rds:{self.backend.region_name}:{self.account_id}:{self.resource_type}:{self.name}"

    @property
    def encrypted(self) -> bool:
        return bool(self.source.storage_encrypted)

    @property
    def backup_retention_period(self) -> int:
        return self.retention or self.source.backup_retention_period

    @property
    def restore_window(self) -> dict[str, datetime]:
        earliest, latest = self.window
        if earliest is None or latest is None:
            return {}
        return {"EarliestTime": earliest, "LatestTime": latest}

    def __getattr__(self, name: str) -> Any:
        """Everything else is the source's: storage, engine, port, user, windows."""
        if name.startswith("_") or name in ("source", "db_instance_status"):
            raise AttributeError(name)
        return getattr(self.source, name)

    @property
    def replications(self) -> list[dict[str, str]]:
        return [{"DBInstanceAutomatedBackupsArn": copy.arn} for copy in self._copies() if copy.status == "replicating"]

    @property
    def db_instance_automated_backups_replications(self) -> list[dict[str, str]]:
        return self.replications

    def _copies(self) -> list[AutomatedBackup]:
        return [
            copy
            for backend in self.backend.all_backends()
            for copy in backend.automated_backups
            if copy.replica_of is self
        ]

    # --- the window --------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether WAL up to the present moment can still be had from the server."""
        return self.status == "active" and self.source.server.running

    @property
    def window(self) -> Window:
        return window(self.archive, self.live, self.backend.emulator.restorable_lag)

    def replicate(self) -> None:
        """Bring the copy up to date, unless the source's region or server is lost."""
        original, lost = self.replica_of, self.backend.emulator.faults.lost
        assert original
        if self.status not in ("pending", "replicating") or {self.region, self.backend.region} & lost:
            return
        if original.live and original.archive.bases:
            original.source.server.archive_now()
            self.archive.follow(original.archive)
            self.status = "replicating"

    # --- ends --------------------------------------------------------------------------------------------------------

    def source_deleted(self, keep: bool) -> None:
        """Backups in the source's own region go with it or are retained; copies elsewhere are retained."""
        for copy in self._copies():
            copy.retain()
        if keep:
            self.status = "retained"
        else:
            self.delete()

    def retain(self) -> None:
        self.status = "retained"
        if self in self.backend.emulator.backups:
            self.backend.emulator.backups.remove(self)

    def delete(self) -> None:
        self.retain()
        self.archive.delete()
        if self in self.backend.automated_backups:
            self.backend.automated_backups.remove(self)


class Backups(Core):
    """The actions on automated backups."""

    def describe_db_instance_automated_backups(
        self,
        db_instance_identifier: Optional[str] = None,
        dbi_resource_id: Optional[str] = None,
        db_instance_automated_backups_arn: Optional[str] = None,
        filters: Optional[list[Mapping[str, Any]]] = None,
        **_: Any,
    ) -> list[AutomatedBackup]:
        found = [
            backup
            for backup in self.automated_backups
            if db_instance_identifier in (None, backup.db_instance_identifier)
            and dbi_resource_id in (None, backup.dbi_resource_id)
            and db_instance_automated_backups_arn in (None, backup.arn)
        ]
        attributes = {
            "status": "status",
            "db-instance-id": "db_instance_identifier",
            "dbi-resource-id": "dbi_resource_id",
        }
        for given in filters or []:
            attribute = attributes.get(given["name"])
            if attribute is None:
                raise rules.parameter_value(f"Unrecognized filter name: {given['name']}")
            found = [backup for backup in found if getattr(backup, attribute) in given["values"]]
        if not found and (dbi_resource_id or db_instance_automated_backups_arn):
            raise self._backup_not_found(dbi_resource_id or db_instance_automated_backups_arn)
        return found

    @staticmethod
    def _backup_not_found(name: Any) -> rules.Refused:
        return rules.Refused("DBInstanceAutomatedBackupNotFound", f"DB instance automated backup {name} not found.")

    def restore_db_instance_to_point_in_time(
        self, source_db_identifier: Optional[str], target_db_identifier: str, overrides: Mapping[str, Any]
    ) -> Any:
        arguments = dict(overrides)
        self._new_identifier(target_db_identifier)
        backup = self._backup_to_restore(source_db_identifier, arguments)
        moment = rules.restore_moment(arguments, backup.window)
        arguments["db_instance_identifier"] = target_db_identifier
        arguments["kms_key_id"] = backup.kms_key_id
        target = self.add_restored(backup.source, arguments)
        fails = self.emulator.faults.happens("incompatible-restore")

        def recover() -> None:
            if backup.live:
                backup.source.server.archive_now()
            target.server.recover(backup.archive, moment)

        self.install_restored(target, recover, fails)
        return target

    def _backup_to_restore(self, identifier: Optional[str], arguments: Mapping[str, Any]) -> AutomatedBackup:
        """By name (an instance), resource id (also of a deleted one) or ARN of backups (also copied here)."""
        resource, arn = (
            arguments.get("source_dbi_resource_id"),
            arguments.get("source_db_instance_automated_backups_arn"),
        )
        if sum(1 for name in (identifier, resource, arn) if name) != 1:
            raise rules.parameter_combination(
                "Specify one of SourceDBInstanceIdentifier, SourceDbiResourceId, SourceDBInstanceAutomatedBackupsArn."
            )
        if identifier:
            instance = self._instance(identifier)
            if instance.backup is None:
                raise rules.Refused(
                    "PointInTimeRestoreNotEnabled",
                    f"Point in time restore is not enabled for DB instance {identifier}: BackupRetentionPeriod is 0.",
                )
            return instance.backup
        for backup in self.automated_backups:
            if arn == backup.arn or (resource == backup.dbi_resource_id and backup.replica_of is None):
                return backup
        raise self._backup_not_found(arn) if arn else DBInstanceNotFoundError(str(resource))

    def add_restored(self, source: Any, arguments: Mapping[str, Any]) -> Instance:
        """A new instance with AWS's defaults, whatever the source has, except for what the call says.

        Default are: security group, subnet group, parameter group, option group, one availability zone, windows, no
        deletion protection, tags, monitoring, performance insights, log exports, copying of tags to snapshots.
        """
        from .instances import INHERITED

        settings = {name: getattr(source, name) for name in INHERITED}
        given = {name: value for name, value in arguments.items() if value is not None}
        given.pop("engine_version", None)
        if given.get("allocated_storage", settings["allocated_storage"]) < settings["allocated_storage"]:
            raise rules.parameter_value("Allocated storage size can't be less than the source instance size.")
        group = given.get("db_parameter_group_name")
        if group and group not in self.db_parameter_groups:
            raise DBParameterGroupNotFoundError(group)
        return self.add_instance({**settings, **given})

    def install_restored(self, target: Instance, recover: Callable[[], None], fails: bool) -> None:
        """Fill a restored instance's server while it is creating; then its first backup."""

        def install() -> None:
            if fails:
                raise PostgresError("the restore fails as the test asked")
            target.install(recover)

        target.ensure_backups()
        steps: list[Step] = [("creating", install), *target.first_backup(), ("modifying", None)]
        self.emulator.work(target, steps, failed="incompatible-restore")

    # --- replication -------------------------------------------------------------------------------------------------

    def start_db_instance_automated_backups_replication(
        self,
        source_db_instance_arn: str,
        backup_retention_period: Optional[int] = None,
        kms_key_id: Optional[str] = None,
        **_: Any,
    ) -> AutomatedBackup:
        """Called in the destination region; an encrypted source wants a key of that region."""
        source: Any = self.find_db_from_id(source_db_instance_arn)
        if source.region == self.region_name:
            raise rules.parameter_value("The source DB instance must be in another region.")
        if source.backup is None:
            raise rules.Refused("InvalidDBInstanceState", "Automated backups are not enabled for the source instance.")
        rules.instance_state(source)
        for copy in self.automated_backups:
            if copy.replica_of is source.backup and copy.status != "retained":
                raise rules.Refused(
                    "InvalidDBInstanceAutomatedBackupState",
                    f"Backups of {source_db_instance_arn} are replicated already.",
                )
        key = rules.key_of_region(self, kms_key_id)
        if source.storage_encrypted and key is None:
            raise rules.parameter_combination("KmsKeyId must be specified: the source DB instance is encrypted.")
        copy = AutomatedBackup(self, source, replica_of=source.backup)
        copy.retention, copy.kms_key_id = backup_retention_period or 7, key
        self.emulator.backups.append(copy)
        return copy

    def stop_db_instance_automated_backups_replication(self, source_db_instance_arn: str, **_: Any) -> AutomatedBackup:
        for copy in self.automated_backups:
            if copy.replica_of and copy.db_instance_arn == source_db_instance_arn and copy.status != "retained":
                copy.retain()
                return copy
        raise rules.Refused("DBInstanceNotFound", f"No replicated backups of {source_db_instance_arn}.")

    def delete_db_instance_automated_backup(
        self,
        dbi_resource_id: Optional[str] = None,
        db_instance_automated_backups_arn: Optional[str] = None,
        **_: Any,
    ) -> AutomatedBackup:
        """Only backups whose instance is gone, or copies that are no longer kept up to date."""
        for backup in list(self.automated_backups):
            if db_instance_automated_backups_arn == backup.arn or dbi_resource_id == backup.dbi_resource_id:
                if backup.status != "retained":
                    raise rules.Refused(
                        "InvalidDBInstanceAutomatedBackupState",
                        f"The automated backup is {backup.status}, not retained.",
                    )
                backup.delete()
                return backup
        raise self._backup_not_found(db_instance_automated_backups_arn or dbi_resource_id)
