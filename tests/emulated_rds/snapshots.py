"""DB snapshots: base backups with rows in them, kept, copied between regions, restored."""

from __future__ import annotations

import shutil
import sys
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from moto.rds.exceptions import (
    DBSnapshotAlreadyExistsError,
    DBSnapshotNotFoundFault,
    KMSKeyNotAccessibleFault,
    SnapshotQuotaExceededFault,
)
from moto.rds.models import DBSnapshot

from . import rules
from .core import Core
from .postgres import PostgresError, utcnow

if TYPE_CHECKING:
    from .instances import Instance


class Snapshot(DBSnapshot):
    """A snapshot; ``data`` is a base backup."""

    backend: Core

    def __init__(self, backend: Core, database: Any, snapshot_id: str, **settings: Any) -> None:
        super().__init__(backend=backend, database=database, snapshot_id=snapshot_id, **settings)
        self.turn = threading.RLock()
        self.status = "creating"
        self.percent_progress = 0
        self.data: Path = backend.emulator.state / backend.region / "snapshots" / uuid.uuid4().hex[:8]
        self.source_region: Optional[str] = None
        self.source_db_snapshot_identifier: Optional[str] = None
        for name in ("availability_zone", "iops", "license_model", "option_group_name", "storage_throughput",
                     "storage_type", "backup_retention_period", "preferred_backup_window", "db_name",
                     "character_set_name", "db_instance_class"):  # fmt: skip
            setattr(self, name, getattr(database, name))


class Snapshots(Core):
    """The actions on DB snapshots."""

    def _snapshot(self, identifier: str) -> Snapshot:
        found = self.get_db_snapshot(identifier)
        assert isinstance(found, Snapshot)
        return found

    def add_snapshot(
        self, instance: Instance, identifier: str, snapshot_type: str = "manual", tags: Optional[list[Any]] = None
    ) -> Snapshot:
        """A snapshot in status creating; nothing is in it yet."""
        self._free_snapshot_name(identifier)
        snapshot = Snapshot(self, instance, identifier, snapshot_type=snapshot_type, tags=tags)
        self.database_snapshots[snapshot.db_snapshot_identifier] = snapshot
        return snapshot

    def _free_snapshot_name(self, identifier: str) -> None:
        """A snapshot that failed holds its name too."""
        if identifier in self.database_snapshots:
            raise DBSnapshotAlreadyExistsError(identifier)
        if len(self.database_snapshots) >= self.SNAPSHOT_QUOTA:
            raise SnapshotQuotaExceededFault()

    def fill_snapshot(self, snapshot: Snapshot, instance: Instance) -> None:
        if self.emulator.faults.happens("snapshot-failed"):
            raise PostgresError("the snapshot fails as the test asked")
        snapshot.percent_progress = 50
        instance.server.base_backup(snapshot.data)
        self._finish_snapshot(snapshot)

    @staticmethod
    def _finish_snapshot(snapshot: Snapshot) -> None:
        snapshot.percent_progress = 100
        snapshot.created = utcnow()
        snapshot.status = "available"

    def create_db_snapshot(
        self,
        db_instance_identifier: str,
        db_snapshot_identifier: str,
        tags: Optional[list[Any]] = None,
        **_: Any,
    ) -> Snapshot:
        instance = self._instance(db_instance_identifier)
        rules.instance_state(instance)
        snapshot = self.add_snapshot(instance, db_snapshot_identifier, tags=tags)

        def back_up() -> None:
            try:
                self.fill_snapshot(snapshot, instance)
            except PostgresError as error:
                print(f"{snapshot.arn}: {error}", file=sys.stderr)
                snapshot.status = "failed"

        instance.status = "backing-up"  # a single-AZ instance shows that it is being backed up
        self.emulator.work(instance, [("backing-up", back_up)])
        return snapshot

    def save_automated_snapshot(self, instance: Instance) -> None:
        """The snapshot ``rds:...`` that AWS keeps of each automated backup."""
        assert instance.backup
        name = f"rds:{instance.db_instance_identifier}-{utcnow():%Y-%m-%d-%H-%M}"
        with self.emulator.lock:
            if name not in self.database_snapshots:
                snapshot = self.add_snapshot(instance, name, "automated")
                snapshot.data = instance.backup.archive.bases[-1].path
                self._finish_snapshot(snapshot)

    def delete_automated_snapshots(self, instance: Instance) -> None:
        for name, snapshot in list(self.database_snapshots.items()):
            if snapshot.snapshot_type == "automated" and snapshot.dbi_resource_id == instance.dbi_resource_id:
                del self.database_snapshots[name]

    def copy_db_snapshot(
        self,
        source_db_snapshot_identifier: str,
        target_db_snapshot_identifier: str,
        kms_key_id: Optional[str] = None,
        tags: Optional[list[Any]] = None,
        copy_tags: Optional[bool] = False,
        **_: Any,
    ) -> Snapshot:
        """Called in the destination region with the source's ARN.

        An encrypted snapshot from another region wants a key of this one; given a key, an unencrypted one is encrypted.
        """
        self._free_snapshot_name(target_db_snapshot_identifier)
        source = self._snapshot(source_db_snapshot_identifier)
        if source.region in self.emulator.faults.lost:
            raise DBSnapshotNotFoundFault(source_db_snapshot_identifier)
        rules.snapshot_state(source)
        elsewhere = source.region != self.region_name
        key = rules.key_of_region(self, kms_key_id)
        if elsewhere and source.encrypted and key is None:
            raise KMSKeyNotAccessibleFault(str(source.kms_key_id))
        target = Snapshot(
            self,
            source.database,
            target_db_snapshot_identifier,
            tags=(source.tags if copy_tags and not tags else tags) or [],
            kms_key_id=key or source.kms_key_id,
            original_created_at=source.original_snapshot_create_time,
        )
        target.tags = (source.tags if copy_tags and not tags else tags) or []
        target.source_db_snapshot_identifier = source.arn
        target.source_region = source.region if elsewhere else None
        for name in ("allocated_storage", "db_instance_identifier", "dbi_resource_id"):
            setattr(target, name, getattr(source, name))
        self.database_snapshots[target.db_snapshot_identifier] = target

        def copy() -> None:
            if self.emulator.faults.happens("snapshot-failed"):
                raise PostgresError("the snapshot fails as the test asked")
            self.emulator.programs.copy(source.data, target.data)
            self._finish_snapshot(target)

        self.emulator.work(target, [("creating", None), ("creating", copy)])
        return target

    def delete_db_snapshot(self, db_snapshot_identifier: str) -> Snapshot:
        if db_snapshot_identifier not in self.database_snapshots:
            raise DBSnapshotNotFoundFault(db_snapshot_identifier)
        snapshot = self._snapshot(db_snapshot_identifier)
        if snapshot.snapshot_type == "automated":
            raise rules.Refused("InvalidDBSnapshotState", "Automated snapshots cannot be deleted.")
        if snapshot.status not in ("available", "failed"):
            rules.snapshot_state(snapshot)
        del self.database_snapshots[snapshot.db_snapshot_identifier]
        shutil.rmtree(snapshot.data, ignore_errors=True)
        snapshot.status = "deleted"
        return snapshot

    def restore_db_instance_from_db_snapshot(self, from_snapshot_id: str, overrides: Mapping[str, Any]) -> Any:
        arguments = dict(overrides)
        snapshot = self._snapshot(from_snapshot_id)
        rules.snapshot_state(snapshot)
        self._new_identifier(arguments["db_instance_identifier"])
        arguments.pop("db_snapshot_identifier", None)
        arguments["kms_key_id"] = snapshot.kms_key_id
        arguments["storage_encrypted"] = snapshot.encrypted
        target = self.add_restored(snapshot, arguments)
        fails = self.emulator.faults.happens("incompatible-restore")
        self.install_restored(target, lambda: target.server.clone(snapshot.data), fails)
        return target
