# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which manual snapshots of a database may go, so that the last good one never does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import SnapshotKind, Snapshots
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import snapshot_facts

Facts = Mapping[str, Any]  # of window.snapshot_facts
GOOD, FAILED = "available", "failed"


@dataclass(frozen=True)
class Rule:
    """What may go: snapshots of ``resource_id`` that carry all ``tags``, beyond a count or older than an age (seconds).

    None sets no limit. Whatever the limits are, the newest good one of them stays.
    """

    resource_id: str
    tags: Mapping[str, str]
    keep_count: Optional[int]
    max_age: Optional[int]


@dataclass(frozen=True)
class Verdict:
    """A snapshot, and why it stays or goes."""

    snapshot: Facts
    delete: bool
    reason: str

    def facts(self) -> dict[str, Any]:
        """What a module returns of it."""
        named = {key: self.snapshot.get(key) for key in ("identifier", "arn", "status", "time", "age")}
        return {**named, "reason": self.reason}


def prune(snapshots: Iterable[Facts], rule: Rule) -> list[Verdict]:
    """A verdict on each snapshot, the newest first. ``snapshots`` may hold any; what a rule does not name stays."""
    ordered = sorted(snapshots, key=lambda snapshot: str(snapshot.get("time") or ""), reverse=True)
    verdicts = []
    good = 0
    for snapshot in ordered:
        stays = _out_of_reach(snapshot, rule)
        if stays:
            verdicts.append(Verdict(snapshot, False, stays))
        elif snapshot.get("status") == FAILED:
            verdicts.append(Verdict(snapshot, True, "it has failed and holds nothing"))
        else:
            good += 1
            verdicts.append(_judge(snapshot, good, rule))
    return verdicts


def _out_of_reach(snapshot: Facts, rule: Rule) -> Optional[str]:
    """Why a snapshot stays whatever the limits are; None for one that they apply to."""
    if snapshot.get("type") != "manual":
        return f"it is {snapshot.get('type')}, not manual"
    if not rule.resource_id or snapshot.get("resource_id") != rule.resource_id:
        return f"it is of another database ({snapshot.get('resource_id')})"
    if snapshot.get("status") not in (GOOD, FAILED):
        return f"it is {snapshot.get('status')}"
    present = snapshot.get("tags") or {}
    missing = [f"{key}={text}" for key, text in sorted(rule.tags.items()) if present.get(key) != text]
    if missing:
        return f"it has no tag {', '.join(missing)}"
    return None if snapshot.get("time") or snapshot.get("status") == FAILED else "AWS does not say how old it is"


def _judge(snapshot: Facts, place: int, rule: Rule) -> Verdict:
    """The verdict on a good snapshot; ``place`` 1 is the newest."""
    age = int(snapshot.get("age") or 0)
    if place == 1:
        return Verdict(snapshot, False, "it is the newest good one")
    if rule.keep_count is not None and place > rule.keep_count:
        return Verdict(snapshot, True, f"there are {rule.keep_count} newer good ones")
    if rule.max_age is not None and age > rule.max_age:
        return Verdict(snapshot, True, f"it is {age} s old, older than {rule.max_age} s")
    return Verdict(snapshot, False, "it is within the limits")


def source_resource_id(rds: Rds, kind: SnapshotKind, identifier: str, given: Optional[str]) -> str:
    """Whose snapshots are meant: as given, or of the database of that name in this region.

    A name alone says nothing: after a swap of identifiers it belongs to another database.
    """
    if given:
        return given
    found = kind.of.find(rds, identifier)
    if found is None:
        raise RecoveryError(
            f"there is no {kind.of.noun} {identifier} in {rds.region} to tell whose snapshots are meant, and a name "
            "may have belonged to several. Nothing was deleted. Give source_resource_id, the "
            f"{kind.of.resource_id} of the database; dbre.recovery.rds_recovery_window_info shows it for each snapshot."
        )
    return str(found[kind.of.resource_id])


def snapshots_of(rds: Rds, kind: SnapshotKind, resource_id: str, now: datetime) -> list[dict[str, Any]]:
    """All manual snapshots of a database in this region."""
    if kind.of is INSTANCE:
        method, key = "describe_db_snapshots", "DBSnapshots"
    else:
        method, key = "describe_db_cluster_snapshots", "DBClusterSnapshots"
    found = rds.all(method, key, SnapshotType="manual", **{kind.of.resource_id: resource_id})
    return [snapshot_facts(snapshot, rds.region, now) for snapshot in found]


def ensure_pruned(snapshots: Snapshots, rule: Rule, now: Callable[[], datetime], check_mode: bool) -> dict[str, Any]:
    """Only what the rule keeps is left; the module's result."""
    deleted: list[Verdict] = []
    while True:
        # Looked at anew before each deletion: somebody else may delete too, and the last good one must not go.
        verdicts = prune(snapshots_of(snapshots.rds, snapshots.kind, rule.resource_id, now()), rule)
        going = [verdict for verdict in verdicts if verdict.delete]
        if check_mode:
            deleted = going
        if check_mode or not going:
            break
        # The oldest first, so that a run that is stopped leaves the newer ones.
        snapshots.remove(str(going[-1].snapshot["identifier"]))
        deleted.append(going[-1])
    kept = [verdict.facts() for verdict in verdicts if not verdict.delete]
    gone = [verdict.facts() for verdict in deleted]
    names = sorted(str(verdict["identifier"]) for verdict in kept)
    return {
        "changed": bool(gone),
        "deleted": gone,
        "kept": kept,
        "resource_id": rule.resource_id,
        "diff": {
            "before": {"snapshots": sorted([*names, *(str(verdict["identifier"]) for verdict in gone)])},
            "after": {"snapshots": names},
        },
    }
