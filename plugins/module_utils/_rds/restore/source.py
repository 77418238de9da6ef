# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is restored from: found in this region, with its windows, and with its settings from wherever they still are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_snapshot
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import region_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import (
    Window,
    backup_window,
    cluster_windows,
    instance_windows,
)

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    BotoCoreError = ClientError = Exception

INSTANCE_SOURCES = (
    "source_db_instance_identifier",
    "source_dbi_resource_id",
    "source_db_instance_automated_backups_arn",
    "db_snapshot_identifier",
)
CLUSTER_SOURCES = ("source_db_cluster_identifier", "source_db_cluster_resource_id", "db_cluster_snapshot_identifier")
# Under this key the settings of a cluster's members stand beside its own.
MEMBERS = "Members"

Regions = Callable[[str], Rds]


@dataclass
class Source:
    """What is restored from. ``arguments`` name it in the restore call ``method``.

    ``settings`` is what AWS shows (or showed) of the database, members below ``Members``; None when nothing is known.
    ``unknown`` is why a setting that is not in there is not known; None when the settings are whole.
    """

    kind: str
    name: str
    identity: str
    method: str
    arguments: dict[str, Any]
    region: str
    windows: list[Window] = field(default_factory=list)
    snapshot: Optional[dict[str, Any]] = None
    settings: Optional[Mapping[str, Any]] = None
    unknown: Optional[str] = None
    engine: str = ""

    @property
    def whole(self) -> bool:
        """Whether the settings are those of a database that was found, not the little that a backup tells."""
        return bool((self.settings or {}).get("DBInstanceStatus") or (self.settings or {}).get("Status"))

    @property
    def members(self) -> Optional[list[Mapping[str, Any]]]:
        """Members of a cluster, the writer first; None when they are not known."""
        return (self.settings or {}).get(MEMBERS)


def with_members(rds: Rds, cluster: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster with what AWS shows of its members, the writer first, then by promotion tier."""
    order = sorted(
        cluster.get("DBClusterMembers") or [],
        key=lambda member: (not member.get("IsClusterWriter"), member.get("PromotionTier") or 0),
    )
    found = [rds.instance(member["DBInstanceIdentifier"]) for member in order]
    return {**cluster, MEMBERS: [member for member in found if member is not None]}


class SourceFinder:
    """Finds the source that an option (one of INSTANCE_SOURCES or CLUSTER_SOURCES) names. Changes nothing."""

    def __init__(
        self,
        option: str,
        named: str,
        rds: Rds,
        regions: Regions,
        *,
        source_region: Optional[str] = None,
        inherit: bool = True,
        source_settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """``rds`` is the region that the copy is made in, ``regions`` gives any other.

        ``source_settings`` are those stored of a source that may be gone; without ``inherit`` none are looked for.
        """
        self.option = option
        self.named = named
        self.rds = rds
        self.regions = regions
        self.source_region = source_region
        self.inherit = inherit
        self.source_settings = source_settings

    def find(self, at: Optional[datetime]) -> Source:
        """The source; RecoveryError when there is nothing to restore from. ``at`` tells backups of one name apart."""
        finders = {
            "source_db_instance_identifier": self._instance,
            "source_dbi_resource_id": self._instance,
            "source_db_instance_automated_backups_arn": self._backups,
            "db_snapshot_identifier": self._snapshot,
            "source_db_cluster_identifier": self._cluster,
            "source_db_cluster_resource_id": self._cluster,
            "db_cluster_snapshot_identifier": self._cluster_snapshot,
        }
        source: Source = finders[self.option](self.named, at)
        self._add_settings(source)
        return source

    @property
    def _home(self) -> str:
        """The region that the source is in."""
        return str(self.source_region or self.rds.region)

    def _instance(self, named: str, at: Optional[datetime]) -> Source:
        by_name = self.option == "source_db_instance_identifier"
        which = {"name": named} if by_name else {"resource_id": named}
        if self._home != self.rds.region:
            windows = instance_windows(self.rds, None, **which)
            return self._from_backups("instance", named, [w for w in windows if w.kind == "replicated"], at)
        instance = self.rds.instance(named) if by_name else self.rds.instance_by_resource_id(named)
        windows = instance_windows(self.rds, instance, **which)
        if instance is None:
            return self._from_backups("instance", named, [w for w in windows if w.kind == "retained"], at)
        if instance.get("DBClusterIdentifier"):
            raise RecoveryError(
                f"{named} is a member of the cluster {instance['DBClusterIdentifier']}, whose members are restored "
                f"together. Nothing was changed. Give source_db_cluster_identifier: {instance['DBClusterIdentifier']}"
            )
        own = [window for window in windows if window.resource_id == instance["DbiResourceId"]]
        if not own:
            self._refuse_no_window(named, instance)
        return Source(
            "instance",
            str(instance["DBInstanceIdentifier"]),
            str(instance["DbiResourceId"]),
            "restore_db_instance_to_point_in_time",
            {"SourceDBInstanceIdentifier": named} if by_name else {"SourceDbiResourceId": named},
            self._home,
            own,
            settings=instance,
            engine=str(instance.get("Engine", "")),
        )

    @staticmethod
    def _refuse_no_window(named: str, shown: Mapping[str, Any]) -> None:
        days = shown.get("BackupRetentionPeriod")
        why = (
            "its automated backups are switched off (backup_retention_period is 0)"
            if days == 0
            else "its first automated backup is not finished"
        )
        raise RecoveryError(
            f"{named} has no moment to restore to: {why}. Nothing was changed. Restore from a snapshot "
            "(db_snapshot_identifier; dbre.recovery.rds_recovery_window_info lists them)."
        )

    def _from_backups(self, kind: str, named: str, windows: list[Window], at: Optional[datetime]) -> Source:
        """A source of which only backups are here: it is gone, or in another region."""
        if not windows:
            away = self._home != self.rds.region
            where = f"replicated from {self._home} " if away else ""
            module = "rds_backup_replication" if away else "rds_recovery_window_info"
            raise RecoveryError(
                f"there is no {kind} {named} in {self.rds.region}, and there are no automated backups of it {where}"
                f"here either. Nothing was changed. Look with dbre.recovery.rds_recovery_window_info (regions says "
                f"where), or restore from a snapshot; backups come to another region by dbre.recovery.{module}."
                if away
                else f"there is no {kind} {named} in {self.rds.region}, and no retained automated backups of it. "
                "Nothing was changed. Check the name and the region, or restore from a snapshot: "
                f"dbre.recovery.{module} lists what there is."
            )
        able = [window for window in windows if at is None or window.holds(at)] or windows
        if len({window.resource_id for window in able}) > 1:
            option = "source_dbi_resource_id" if kind == "instance" else "source_db_cluster_resource_id"
            listed = "; ".join(f"{window.resource_id}: {window}" for window in able)
            raise RecoveryError(
                f"more than one {kind} was called {named}, and each left backups: {listed}. Nothing was changed. Say "
                f"which one with {option}."
            )
        window = able[0]
        source = Source(kind, window.identifier, window.resource_id, "", {}, self._home, [window])
        source.engine = str(window.record.get("Engine", ""))
        source.settings = _like_cluster(window.record) if kind == "cluster" else _like_instance(window.record)
        if kind == "cluster":
            source.method = "restore_db_cluster_to_point_in_time"
            source.arguments = {"SourceDbClusterResourceId": window.resource_id}
        else:
            source.method = "restore_db_instance_to_point_in_time"
            source.arguments = (
                {"SourceDBInstanceAutomatedBackupsArn": window.arn}
                if window.kind == "replicated"
                else {"SourceDbiResourceId": window.resource_id}
            )
        return source

    def _backups(self, arn: str, at: Optional[datetime]) -> Source:
        self._refuse_arn_of_elsewhere(
            "source_db_instance_automated_backups_arn",
            arn,
            "Automated backups are restored in the region they are kept in: set region to it.",
        )
        found = next(iter(self.rds.automated_backups(DBInstanceAutomatedBackupsArn=arn)), None)
        if found is None:
            raise RecoveryError(
                f"there are no automated backups {arn}. Nothing was changed. List: aws rds "
                f"describe-db-instance-automated-backups --region {self.rds.region}"
            )
        home = str(self.source_region or region_of(str(found.get("DBInstanceArn"))) or self.rds.region)
        return Source(
            "instance",
            str(found.get("DBInstanceIdentifier")),
            str(found.get("DbiResourceId")),
            "restore_db_instance_to_point_in_time",
            {"SourceDBInstanceAutomatedBackupsArn": arn},
            home,
            [backup_window(found, self.rds.region)],
            settings=_like_instance(found),
            engine=str(found.get("Engine", "")),
        )

    def _cluster(self, named: str, at: Optional[datetime]) -> Source:
        by_name = self.option == "source_db_cluster_identifier"
        if self._home != self.rds.region:
            raise RecoveryError(
                f"cluster {named} is in {self._home}, and automated backups of a cluster are restored in their own "
                f"region only. Nothing was changed. Restore from a snapshot that was copied to {self.rds.region} "
                "(db_cluster_snapshot_identifier; dbre.recovery.rds_recovery_window_info lists them)."
            )
        cluster = self.rds.cluster(named) if by_name else self.rds.cluster_by_resource_id(named)
        which = {"name": named} if by_name else {"resource_id": named}
        windows = cluster_windows(self.rds, cluster, **which)
        if cluster is None:
            return self._from_backups("cluster", named, windows, at)
        return Source(
            "cluster",
            str(cluster["DBClusterIdentifier"]),
            str(cluster["DbClusterResourceId"]),
            "restore_db_cluster_to_point_in_time",
            {"SourceDBClusterIdentifier": named} if by_name else {"SourceDbClusterResourceId": named},
            self._home,
            windows[:1],
            settings=with_members(self.rds, cluster),
            engine=str(cluster.get("Engine", "")),
        )

    def _snapshot(self, named: str, at: Optional[datetime]) -> Source:
        self._refuse_arn_of_elsewhere("db_snapshot_identifier", named, _COPY_FIRST)
        found = self.rds.snapshot(named)
        if found is None:
            self._refuse_no_snapshot("db_snapshot_identifier", named)
        snapshot = dict(found or {})
        look_at_snapshot(snapshot, named)
        home = self.source_region or snapshot.get("SourceRegion") or self.rds.region
        return Source(
            "instance",
            str(snapshot.get("DBInstanceIdentifier")),
            str(snapshot.get("DBSnapshotArn") or named),
            "restore_db_instance_from_db_snapshot",
            {"DBSnapshotIdentifier": named},
            str(home),
            snapshot=snapshot,
            settings=_like_instance(snapshot),
            engine=str(snapshot.get("Engine", "")),
        )

    def _cluster_snapshot(self, named: str, at: Optional[datetime]) -> Source:
        self._refuse_arn_of_elsewhere("db_cluster_snapshot_identifier", named, _COPY_FIRST)
        found = self.rds.cluster_snapshot(named)
        if found is None:
            self._refuse_no_snapshot("db_cluster_snapshot_identifier", named)
        snapshot = dict(found or {})
        look_at_snapshot(snapshot, named)
        origin = region_of(str(snapshot.get("SourceDBClusterSnapshotArn") or ""))
        arguments = {"SnapshotIdentifier": named, "Engine": snapshot.get("Engine")}
        if snapshot.get("EngineVersion"):
            # Without it AWS takes the default version of the region, whatever the snapshot has.
            arguments["EngineVersion"] = snapshot["EngineVersion"]
        return Source(
            "cluster",
            str(snapshot.get("DBClusterIdentifier")),
            str(snapshot.get("DBClusterSnapshotArn") or named),
            "restore_db_cluster_from_snapshot",
            arguments,
            str(self.source_region or origin or self.rds.region),
            snapshot=snapshot,
            settings=_like_cluster(snapshot),
            engine=str(snapshot.get("Engine", "")),
        )

    def _refuse_arn_of_elsewhere(self, option: str, named: str, hint: str) -> None:
        region = region_of(named)
        if region and region != self.rds.region:
            raise RecoveryError(
                f"{option} {named} is in {region}, and the copy is made in {self.rds.region}. Nothing was changed. "
                f"{hint}"
            )

    def _refuse_no_snapshot(self, option: str, named: str) -> None:
        raise RecoveryError(
            f"there is no snapshot {named} in {self.rds.region}. Nothing was changed. "
            f"dbre.recovery.rds_recovery_window_info lists the snapshots of a database; give {option} from it."
        )

    def _add_settings(self, source: Source) -> None:
        """Settings of the database itself where it still is, else those that were stored, else what backups tell."""
        if not self.inherit:
            source.settings = None
            return
        if source.whole:
            return
        shown, reason = self._look_at_home(source)
        stored = self.source_settings
        if shown is None and stored:
            self._refuse_other_settings(stored, source)
            shown = stored
        if shown is not None:
            source.settings, source.unknown = shown, None
        else:
            source.unknown = f"{reason}: give it, or source_settings"

    def _look_at_home(self, source: Source) -> tuple[Optional[Mapping[str, Any]], str]:
        """What AWS shows of the source in its own region, or why that is not known."""
        resource = str(
            (source.snapshot or {}).get("DbiResourceId")
            or (source.snapshot or {}).get("DbClusterResourceId")
            or source.identity
        )
        try:
            rds = self.rds if source.region == self.rds.region else self.regions(source.region)
            if source.kind == "instance":
                shown = rds.instance(source.name)
                key = "DbiResourceId"
            else:
                shown = rds.cluster(source.name)
                key = "DbClusterResourceId"
            if shown is not None and source.kind == "cluster":
                shown = with_members(rds, shown)
        except (BotoCoreError, ClientError) as error:
            said = error_text(error) if error_code(error) else str(error)
            return None, f"{source.region} cannot be asked for the settings of {source.name} ({said})"
        if shown is None:
            return None, f"{source.name} is gone from {source.region}"
        # One of the same name is another database, unless AWS does not say whose the backup is.
        if shown.get(key) != resource and ":" not in resource:
            return None, f"{source.name} in {source.region} is another database now ({shown.get(key)}, not {resource})"
        return shown, ""

    @staticmethod
    def _refuse_other_settings(stored: Mapping[str, Any], source: Source) -> None:
        key = "DBInstanceIdentifier" if source.kind == "instance" else "DBClusterIdentifier"
        if stored.get(key) != source.name:
            raise RecoveryError(
                f"source_settings are those of {stored.get(key)!r} ({key}), not of {source.name}. Nothing was changed. "
                f"Give what describe-db-{source.kind}s (or dbre.recovery.rds_recovery_window_info, key settings) "
                f"returned of {source.name}."
            )


_COPY_FIRST = "A snapshot is restored in its own region: copy it first with dbre.recovery.rds_snapshot_copy."


def _like_instance(backup: Mapping[str, Any]) -> dict[str, Any]:
    """What an automated backup or a snapshot tells of its instance, under the keys that an instance has."""
    kept = (
        "AllocatedStorage",
        "DedicatedLogVolume",
        "Engine",
        "IAMDatabaseAuthenticationEnabled",
        "Iops",
        "LicenseModel",
        "ProcessorFeatures",
        "StorageThroughput",
        "StorageType",
    )
    like = {key: backup[key] for key in kept if backup.get(key) is not None}
    if backup.get("Port"):
        like["DbInstancePort"] = backup["Port"]
    if backup.get("OptionGroupName"):
        like["OptionGroupMemberships"] = [{"OptionGroupName": backup["OptionGroupName"]}]
    return like


def _like_cluster(backup: Mapping[str, Any]) -> dict[str, Any]:
    """What a snapshot tells of its cluster, under the keys that a cluster has."""
    kept = ("Engine", "EngineMode", "IAMDatabaseAuthenticationEnabled", "Port", "StorageType")
    return {key: backup[key] for key in kept if backup.get(key) not in (None, 0, "")}
