# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To which moments a database can be restored, region by region, and which snapshots there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import region_of


@dataclass(frozen=True)
class Window:
    """One set of automated backups, and the moments it reaches.

    ``kind`` is ``automated`` for those of a database that is there, ``replicated`` for a copy in another region,
    ``retained`` for those of one that is gone. ``earliest`` is None where AWS does not tell.
    """

    region: str
    kind: str
    identifier: str
    resource_id: str
    earliest: Optional[datetime]
    latest: Optional[datetime]
    arn: Optional[str] = None
    status: Optional[str] = None
    retention_period: Optional[int] = None
    encrypted: bool = False
    kms_key_id: Optional[str] = None
    record: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def holds(self, at: datetime) -> bool:
        """Whether ``at`` can be restored from it."""
        return self.latest is not None and (self.earliest is None or self.earliest <= at) and at <= self.latest

    def nearest(self, at: datetime) -> Optional[datetime]:
        """The moment next to ``at`` that can be; None when there is none."""
        if self.latest is None:
            return None
        return min(max(at, self.earliest or at), self.latest)

    def facts(self) -> dict[str, Any]:
        """What a module returns of it."""
        return {
            "region": self.region,
            "kind": self.kind,
            "identifier": self.identifier,
            "resource_id": self.resource_id,
            "earliest": iso(self.earliest),
            "latest": iso(self.latest),
            "arn": self.arn,
            "status": self.status,
            "retention_period": self.retention_period,
            "encrypted": self.encrypted,
            "kms_key_id": self.kms_key_id,
        }

    def __str__(self) -> str:
        return f"{iso(self.earliest) or 'unknown'} to {iso(self.latest) or 'unknown'} ({self.kind}, {self.region})"


def backup_window(backup: Mapping[str, Any], region: str) -> Window:
    """The window of an automated backup of an instance or a cluster, found in ``region``."""
    window = backup.get("RestoreWindow") or {}
    home = region_of(str(backup.get("DBInstanceArn") or backup.get("DBClusterArn") or ""))
    kind = "retained" if backup.get("Status") == "retained" else "automated"
    return Window(
        region,
        "replicated" if home and home != region else kind,
        str(backup.get("DBInstanceIdentifier") or backup.get("DBClusterIdentifier") or ""),
        str(backup.get("DbiResourceId") or backup.get("DbClusterResourceId") or ""),
        window.get("EarliestTime"),
        window.get("LatestTime"),
        backup.get("DBInstanceAutomatedBackupsArn") or backup.get("DBClusterAutomatedBackupsArn"),
        backup.get("Status"),
        backup.get("BackupRetentionPeriod"),
        bool(backup.get("Encrypted") or backup.get("StorageEncrypted")),
        backup.get("KmsKeyId"),
        backup,
    )


def instance_windows(
    rds: Rds, instance: Optional[Mapping[str, Any]], name: str = "", resource_id: str = ""
) -> list[Window]:
    """Windows of automated backups in this region: those of the resource id, or all of instances called ``name``.

    An instance that is there knows its newest moment better than the list of backups does, which follows later.
    """
    if resource_id:
        backups = rds.automated_backups(DbiResourceId=resource_id)
    else:
        backups = _called(name, "DBInstanceIdentifier", rds.automated_backups())
    windows = [backup_window(backup, rds.region) for backup in backups]
    if instance is None or not instance.get("LatestRestorableTime"):
        return windows
    own = [window for window in windows if window.resource_id == instance.get("DbiResourceId")]
    known = own[0] if own else None
    latest = max(
        moment for moment in (known.latest if known else None, instance["LatestRestorableTime"]) if moment is not None
    )
    merged = Window(
        rds.region,
        "automated",
        str(instance.get("DBInstanceIdentifier", "")),
        str(instance.get("DbiResourceId", "")),
        known.earliest if known else None,
        latest,
        known.arn if known else None,
        known.status if known else None,
        instance.get("BackupRetentionPeriod"),
        bool(instance.get("StorageEncrypted")),
        instance.get("KmsKeyId"),
    )
    return [merged, *(window for window in windows if window not in own)]


def cluster_windows(
    rds: Rds, cluster: Optional[Mapping[str, Any]], name: str = "", resource_id: str = ""
) -> list[Window]:
    """Windows of a cluster in this region, like ``instance_windows``: its own, and those of deleted ones."""
    if resource_id:
        backups = rds.cluster_automated_backups(DbClusterResourceId=resource_id)
    else:
        backups = _called(name, "DBClusterIdentifier", rds.cluster_automated_backups())
    windows = [backup_window(backup, rds.region) for backup in backups]
    if cluster is None:
        return windows
    own = Window(
        rds.region,
        "automated",
        str(cluster.get("DBClusterIdentifier", "")),
        str(cluster.get("DbClusterResourceId", "")),
        cluster.get("EarliestRestorableTime"),
        cluster.get("LatestRestorableTime"),
        None,
        "active",
        cluster.get("BackupRetentionPeriod"),
        bool(cluster.get("StorageEncrypted")),
        cluster.get("KmsKeyId"),
    )
    return [own, *(window for window in windows if window.resource_id != own.resource_id)]


def _called(name: str, key: str, backups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Backups of databases of a name. Asked by the name, AWS tells those of a database that is there only."""
    return [backup for backup in backups if str(backup.get(key, "")).lower() == name.lower()]


def refuse_outside(at: datetime, windows: Iterable[Window], name: str, snapshots: str = "") -> None:
    """Raise RecoveryError when no window holds ``at``: it prints each window and the nearest moment that can be."""
    windows = list(windows)
    if any(window.holds(at) for window in windows):
        return
    near = [(moment, window) for window in windows if (moment := window.nearest(at)) is not None]
    if near:
        moment, window = min(near, key=lambda pair: abs(pair[0] - at))
        hint = f"The nearest moment that can be is {iso(moment)} ({window.kind}, {window.region}). "
    else:
        moment = None
        hint = "There are no automated backups to restore a moment from. "
    listed = "; ".join(str(window) for window in windows) or "none"
    raise RecoveryError(
        f"{name} cannot be restored to {iso(at)}. What can be restored: {listed}. {hint}{snapshots}"
        "Nothing was changed. The newest moment follows the clock by about five minutes: one that is just over may be "
        "inside soon.",
        windows=[window.facts() for window in windows],
        nearest=iso(moment),
    )


def predecessors(rds: Rds, kind: str, name: str, at: datetime, windows: Iterable[Window]) -> str:
    """Where a moment before all windows may be found: in what a blue/green switchover has left of a name; else nothing.

    The database that was called so is renamed to NAME-old1, with its backups; the one that is called so now has another
    resource ID, and backups from its making on ("Switchover actions", RDS user guide).
    """
    if any(window.earliest is None or window.earliest <= at for window in windows):
        return ""
    method, key = f"describe_db_{kind}s", "DBClusters" if kind == "cluster" else "DBInstances"
    identifier = f"DB{kind.capitalize()}Identifier"
    former = re.compile(re.escape(name) + r"-old\d+", re.IGNORECASE)
    told = []
    for item in rds.all(method, key):
        found = str(item.get(identifier, ""))
        if former.fullmatch(found):
            windows = cluster_windows(rds, item, found) if kind == "cluster" else instance_windows(rds, item, found)
            reach = "; ".join(str(window) for window in windows) or "it has no automated backups"
            told.append(f"{found} ({item.get('DbClusterResourceId') or item.get('DbiResourceId')}; {reach})")
    if not told:
        return ""
    return (
        f"By its name, {', '.join(told)} was {name} until a blue/green deployment was switched over, and has the "
        f"backups from before: restore from it with dbre.recovery.rds_restore (source_db_{kind}_identifier), and bring "
        "over what was lost by hand. "
    )


def snapshot_facts(snapshot: Mapping[str, Any], region: str, now: datetime) -> dict[str, Any]:
    """What a module returns of a snapshot of an instance or a cluster."""
    cluster = "DBClusterSnapshotIdentifier" in snapshot
    identifier = snapshot.get("DBClusterSnapshotIdentifier") or snapshot.get("DBSnapshotIdentifier")
    copied_from = snapshot.get("SourceDBClusterSnapshotArn") or snapshot.get("SourceDBSnapshotIdentifier")
    # A copy has the time of copying; what it holds is as old as the snapshot that it was copied from.
    holds = snapshot.get("OriginalSnapshotCreateTime") or snapshot.get("SnapshotCreateTime")
    return {
        "region": region,
        "identifier": identifier,
        "arn": snapshot.get("DBClusterSnapshotArn") or snapshot.get("DBSnapshotArn"),
        "kind": "cluster" if cluster else "instance",
        "source": snapshot.get("DBClusterIdentifier") or snapshot.get("DBInstanceIdentifier"),
        "resource_id": snapshot.get("DbClusterResourceId") or snapshot.get("DbiResourceId"),
        "type": snapshot.get("SnapshotType"),
        "copied_from": copied_from or None,
        "source_region": snapshot.get("SourceRegion") or region_of(str(copied_from or "")) or region,
        "status": snapshot.get("Status"),
        "created": iso(snapshot.get("SnapshotCreateTime")),
        "time": iso(holds),
        "age": None if holds is None else max(0, int((now - holds).total_seconds())),
        "size": snapshot.get("FullSnapshotSizeInBytes"),
        "allocated_storage": snapshot.get("AllocatedStorage"),
        "encrypted": bool(snapshot.get("Encrypted") or snapshot.get("StorageEncrypted")),
        "kms_key_id": snapshot.get("KmsKeyId"),
        "engine": snapshot.get("Engine"),
        "engine_version": snapshot.get("EngineVersion"),
        "tags": tags_of(snapshot.get("TagList")),
    }


def list_snapshots(rds: Rds, kind: str, identifier: str, now: datetime) -> list[dict[str, Any]]:
    """Snapshots of an instance or cluster that are kept in this region, the newest first.

    Those of AWS Backup, which makes none of Aurora that RDS would list, are told only to who asks for them.
    """
    if kind == "cluster":
        found = list(rds.all("describe_db_cluster_snapshots", "DBClusterSnapshots", DBClusterIdentifier=identifier))
    else:
        asked = {"DBInstanceIdentifier": identifier}
        found = [
            *rds.all("describe_db_snapshots", "DBSnapshots", **asked),
            *(
                snapshot
                for snapshot in rds.all("describe_db_snapshots", "DBSnapshots", SnapshotType="awsbackup", **asked)
                if snapshot.get("SnapshotType") == "awsbackup"
            ),
        ]
    facts = [snapshot_facts(snapshot, rds.region, now) for snapshot in found]
    return sorted(facts, key=lambda snapshot: snapshot["time"] or "", reverse=True)


def last_before(at: datetime, snapshots: Iterable[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The newest complete snapshot from before ``at``; None when there is none."""
    able = [
        snapshot
        for snapshot in snapshots
        if snapshot["status"] == "available" and snapshot["time"] and datetime.fromisoformat(snapshot["time"]) <= at
    ]
    return max(able, key=lambda snapshot: datetime.fromisoformat(snapshot["time"]), default=None)
