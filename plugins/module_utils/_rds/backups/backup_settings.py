# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an instance or a cluster keeps backups: read first, and change only what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.policy import (
    LONGEST_RETENTION,
    SHORTEST_RETENTION,
    WINDOW_MINUTES,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    CLUSTER,
    INSTANCE,
    Kind,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import plain
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import with_members

# Options and what the API calls them, in describe and in modify calls, for instances and clusters alike.
SETTINGS = {
    "backup_retention_period": "BackupRetentionPeriod",
    "preferred_backup_window": "PreferredBackupWindow",
    "deletion_protection": "DeletionProtection",
    "copy_tags_to_snapshot": "CopyTagsToSnapshot",
}
RETENTION = SETTINGS["backup_retention_period"]
# What AWS shows and what changes without anybody having changed a setting, or is only under way.
_PASSING = frozenset(
    {
        "AutomaticRestartTime",
        "DBInstanceAutomatedBackupsReplications",
        "DBInstanceStatus",
        "EarliestRestorableTime",
        "LatestRestorableTime",
        "PendingModifiedValues",
        "PercentProgress",
        "Status",
        "StatusInfos",
        "StorageOperationPercentProgress",
        "StorageOperationStatus",
        "StorageVolumeStatus",
    }
)
_SECRET = re.compile(r"password", re.IGNORECASE)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_MAINTENANCE = re.compile(r"(\w{3}):(\d\d):(\d\d)-(\w{3}):(\d\d):(\d\d)")
_DAY_MINUTES, _WEEK_MINUTES = 1440, 10080

Item = Mapping[str, Any]


@dataclass(frozen=True)
class DesiredSettings:
    """Settings by the API's names, without those that stay as they are, and whether retention may shrink."""

    settings: Mapping[str, Any]
    allow_shorter_retention: bool = False


def desired_settings(
    *,
    backup_retention_period: Optional[int] = None,
    preferred_backup_window: Optional[str] = None,
    deletion_protection: Optional[bool] = None,
    copy_tags_to_snapshot: Optional[bool] = None,
    allow_shorter_retention: bool = False,
) -> DesiredSettings:
    """What is wished for; None leaves a setting as it is. RecoveryError for what AWS would refuse."""
    days, window = backup_retention_period, preferred_backup_window
    if days is not None and not SHORTEST_RETENTION <= days <= LONGEST_RETENTION:
        raise RecoveryError(
            f"backup_retention_period {days} is not from {SHORTEST_RETENTION} to {LONGEST_RETENTION} days. Nothing was "
            "changed. Keep what must be older as copies of snapshots (dbre.recovery.rds_snapshot_copy)."
        )
    if window is not None and _daily(window) is None:
        raise RecoveryError(
            f"preferred_backup_window {window!r} is no window of at least {WINDOW_MINUTES} minutes. Nothing was "
            "changed. Write it as HH:MM-HH:MM in UTC, such as 01:00-01:30."
        )
    wanted = dict(zip(SETTINGS.values(), (days, window, deletion_protection, copy_tags_to_snapshot)))
    settings = {key: value for key, value in wanted.items() if value is not None}
    return DesiredSettings(settings, allow_shorter_retention)


def _daily(window: str) -> Optional[tuple[int, int]]:
    """Begin and length in minutes; None for what is no backup window."""
    found = _WINDOW.fullmatch(window)
    if found is None:
        return None
    begin, end = (int(found.group(at)) * 60 + int(found.group(at + 1)) for at in (1, 3))
    length = (end - begin) % _DAY_MINUTES
    return (begin, length) if length >= WINDOW_MINUTES else None


def overlap(backup: str, maintenance: str) -> bool:
    """Whether a daily backup window and a weekly maintenance window (``sun:01:10-sun:01:40``) meet, as AWS refuses."""
    daily, found = _daily(backup), _MAINTENANCE.fullmatch(maintenance.lower())
    if daily is None or found is None or found.group(1) not in _DAYS or found.group(4) not in _DAYS:
        return False
    begin, end = (
        _DAYS.index(found.group(at)) * _DAY_MINUTES + int(found.group(at + 1)) * 60 + int(found.group(at + 2))
        for at in (1, 4)
    )
    length = (end - begin) % _WEEK_MINUTES
    for day in range(7):
        distance = (day * _DAY_MINUTES + daily[0] - begin) % _WEEK_MINUTES
        if distance < length or _WEEK_MINUTES - distance < daily[1]:
            return True
    return False


def shown(item: Item, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Present values of the settings that are wished for, by the module's option names."""
    return {option: item.get(key) for option, key in SETTINGS.items() if key in keys}


def changes(item: Item, wish: DesiredSettings) -> dict[str, Any]:
    """What of the wish is not so yet, by the API's names."""
    return {key: wanted for key, wanted in wish.settings.items() if item.get(key) != wanted}


def lasting(value: Any, top: bool = True) -> Any:
    """What AWS shows of a database, JSON-safe: without secrets and without what passes by itself."""
    if isinstance(value, Mapping):
        return {
            key: lasting(inner, top=key == "Members")
            for key, inner in value.items()
            if not _SECRET.search(key) and not (top and key in _PASSING)
        }
    if isinstance(value, (list, tuple)):
        return [lasting(inner, top) for inner in value]
    return plain(value)


class Settings:
    """The backup settings of one database."""

    def __init__(self, rds: Rds, waiting: Waiting, kind: Kind, identifier: str) -> None:
        self.rds = rds
        self.waiting = waiting
        self.kind = kind
        self.identifier = identifier

    def check(self, item: Item, wish: DesiredSettings) -> dict[str, Any]:
        """What is to be changed; RecoveryError for what must not be, or cannot be now."""
        changing = changes(item, wish)
        if self.kind is INSTANCE and item.get("DBClusterIdentifier"):
            raise RecoveryError(
                f"{self.identifier} is a member of DB cluster {item['DBClusterIdentifier']}, which keeps the backups "
                f"of all its members. Nothing was changed. Give db_cluster_identifier: {item['DBClusterIdentifier']} "
                "(in the inventory rds_cluster)."
            )
        point = item.get("AwsBackupRecoveryPointArn")
        if point and {RETENTION, "PreferredBackupWindow"} & set(changing):
            raise RecoveryError(
                f"backups of {self.identifier} are those of AWS Backup ({point}), and RDS lets nobody else say how "
                "they are kept. Nothing was changed. Set retention and window in its backup plan (aws backup "
                "list-backup-plans), and leave backup_retention_period and preferred_backup_window out.",
                recovery_point=point,
            )
        current = int(item.get(RETENTION) or 0)
        if RETENTION in changing and changing[RETENTION] < current and not wish.allow_shorter_retention:
            raise RecoveryError(
                f"backup_retention_period {changing[RETENTION]} is shorter than the {current} days that "
                f"{self.identifier} has now, and AWS deletes the backups beyond it at once. Nothing was changed. Set "
                "allow_shorter_retention (rds_backup_allow_shorter_retention) to true if that is meant."
            )
        window, maintenance = changing.get("PreferredBackupWindow"), str(item.get("PreferredMaintenanceWindow") or "")
        if window and overlap(window, maintenance):
            raise RecoveryError(
                f"preferred_backup_window {window} meets the maintenance window {maintenance} of {self.identifier}, "
                "which AWS refuses. Nothing was changed. Give another preferred_backup_window (rds_backup_window), or "
                f"move the maintenance: aws rds modify-{self.kind.cli} --{self.kind.cli}-identifier {self.identifier} "
                "--preferred-maintenance-window ddd:HH:MM-ddd:HH:MM"
            )
        others = sorted(key for key, value in pending(item).items() if key != RETENTION and value is not None)
        if others and self.at_once(item, changing):
            raise RecoveryError(
                f"{self.identifier} has changes of others that wait for its maintenance window ({', '.join(others)}), "
                "and AWS would apply them now together with the change of backup_retention_period. Nothing was "
                "changed. Run again after the window, or have them applied first: aws rds "
                f"modify-{self.kind.cli} --{self.kind.cli}-identifier {self.identifier} --apply-immediately",
                pending=others,
            )
        return changing

    def at_once(self, item: Item, changing: Mapping[str, Any]) -> bool:
        """Whether the change would wait for the maintenance window unless AWS is told to apply it at once.

        "Settings for DB instances" in the RDS user guide: only switching backups on does, and any retention of a
        cluster. Saying so applies whatever else is pending too, so it is said only where it is needed.
        """
        return RETENTION in changing and (self.kind is CLUSTER or not item.get(RETENTION))

    def apply(self, item: Item, wish: DesiredSettings) -> dict[str, Any]:
        """Send what differs, nothing else, and wait until it is so; the database as it is then."""
        resource_id = str(item[self.kind.resource_id])
        safe = "Its data and its backups are untouched."
        item = self.kind.wait_available(self.rds, self.waiting, self.identifier, safe, resource_id)
        # What waited for, or somebody else, may have done it meanwhile.
        changing = self.check(item, wish)
        if changing:
            request: dict[str, Any] = {self.kind.identifier: str(item[self.kind.identifier]), **changing}
            if self.at_once(item, changing):
                request["ApplyImmediately"] = True
            what = f"change of {', '.join(sorted(changing))} of {self.identifier}"
            when_allowed(self.waiting, what, lambda: self.rds.call(self.kind.modify, **request), safe)

        def look() -> Status:
            found = self.kind.find_by_resource_id(self.rds, resource_id)
            seen = self.kind.look(found, self.identifier)
            left = sorted(changes(found or {}, wish))
            if seen.done and left:
                return Status(f"{seen.status}, and {', '.join(left)} not applied yet", False)
            return seen

        return dict(self.waiting.until(f"backup settings of {self.identifier}", look, safe))


def pending(item: Item) -> Mapping[str, Any]:
    """Changes that AWS has accepted and not applied yet."""
    return item.get("PendingModifiedValues") or {}


def ensure_settings(settings: Settings, wish: DesiredSettings, check_mode: bool) -> dict[str, Any]:
    """The backup settings as wished; the module's result."""
    kind, rds = settings.kind, settings.rds
    item: dict[str, Any] = kind.require(rds, settings.identifier)
    changing = settings.check(item, wish)
    before = shown(item, wish.settings)
    if changing and not check_mode:
        item = settings.apply(item, wish)
    named = {option: changing[key] for option, key in SETTINGS.items() if key in changing}
    full = with_members(rds, item) if kind is CLUSTER else item
    return {
        "changed": bool(changing),
        "changes": named,
        "region": rds.region,
        "resource_id": item.get(kind.resource_id),
        "settings": lasting(full),
        "diff": {"before": before, "after": {**before, **named}},
    }
