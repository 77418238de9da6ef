# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the statuses of instances, clusters and snapshots mean for somebody who waits.

Sources: "Viewing Amazon RDS DB instance status" and "Viewing DB cluster status" in the RDS and Aurora user guides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status

# Statuses that do not pass by themselves, and what a person does about each.
STUCK = {
    "failed": "AWS could not recover it. Restore to another moment or from a snapshot, and delete this one",
    "inaccessible-encryption-credentials": "its KMS key cannot be used: enable the key and its grants, then start it",
    "inaccessible-encryption-credentials-recoverable": (
        "its KMS key cannot be used: enable the key and its grants, then start it (aws rds start-db-instance)"
    ),
    "incompatible-create": "it was asked for with options that its engine version does not know; see its events",
    "incompatible-credentials": "its Secrets Manager secret or user cannot be used; see its events",
    "incompatible-network": "the subnet group has no free addresses, or its VPC cannot be used; see its events",
    "incompatible-option-group": "the option group does not fit; give another one",
    "incompatible-parameters": "its parameter group asks for what the instance class cannot give; give another one",
    "incompatible-restore": "this restore is not possible; see its events, and restore to another moment or a snapshot",
    "insufficient-capacity": "AWS has no such instance class free there now; give another class or zone",
    "restore-error": "the restore failed; see its events and restore from another snapshot",
    "storage-full": "its disk is full: raise allocated storage, then wait (aws rds modify-db-instance)",
    "stopped": "it is stopped: start it (aws rds start-db-instance or start-db-cluster)",
    "cloning-failed": "the clone failed; see its events",
    "migration-failed": "the migration failed; see its events",
}
# Available enough to be connected to and to be worked on (backups and enhanced monitoring run beside it).
# storage-initialization: blocks of a restored volume are still being loaded, for hours; all operations work meanwhile.
AVAILABLE = frozenset({"available", "storage-config-upgrade", "storage-initialization", "storage-optimization"})


def refuse_stuck(kind: str, identifier: str, status: str) -> None:
    """Raise RecoveryError when ``status`` leads nowhere."""
    if status in STUCK:
        source = "db-cluster" if "cluster" in kind else "db-instance"
        raise RecoveryError(
            f"{kind} {identifier} is in status '{status}' and does not leave it by itself: {STUCK[status]}. Nothing "
            f"else was changed. See: aws rds describe-events --source-type {source} --source-identifier {identifier} "
            "--duration 1440",
            status=status,
        )


def look_at_instance(instance: Optional[Mapping[str, Any]], identifier: str, missing: str = "not there yet") -> Status:
    """Whether a DB instance can be used now; raises RecoveryError for a status that leads nowhere.

    One that is missing is not there *yet* (right after a rename or a creation the API does not find it).
    """
    if instance is None:
        return Status(missing, False)
    status = str(instance.get("DBInstanceStatus", ""))
    refuse_stuck("DB instance", identifier, status)
    # Without an address nobody can connect, whatever the status says.
    ready = status in AVAILABLE and bool((instance.get("Endpoint") or {}).get("Address"))
    return Status(status, ready, _percent(instance), dict(instance))


def look_at_cluster(cluster: Optional[Mapping[str, Any]], identifier: str, missing: str = "not there yet") -> Status:
    """Whether a DB cluster can be used now, like ``look_at_instance``. Says nothing of its members."""
    if cluster is None:
        return Status(missing, False)
    status = str(cluster.get("Status", ""))
    refuse_stuck("DB cluster", identifier, status)
    return Status(status, status in AVAILABLE and bool(cluster.get("Endpoint")), _percent(cluster), dict(cluster))


def look_at_snapshot(snapshot: Optional[Mapping[str, Any]], identifier: str) -> Status:
    """Whether a snapshot of an instance or a cluster is complete; raises RecoveryError when it has failed."""
    if snapshot is None:
        return Status("not there yet", False)
    status = str(snapshot.get("Status", ""))
    if status in ("failed", "incompatible-restore", "deleted"):
        kind = "db-cluster" if "DBClusterSnapshotIdentifier" in snapshot else "db"
        raise RecoveryError(
            f"snapshot {identifier} has failed (status '{status}'); it holds nothing. The database itself is "
            f"untouched. Delete it and take another: aws rds delete-{kind}-snapshot --{kind}-snapshot-identifier "
            f"{identifier}",
            status=status,
        )
    return Status(status, status == "available", _percent(snapshot), dict(snapshot))


def _percent(item: Mapping[str, Any]) -> Optional[int]:
    """``PercentProgress`` is a number for snapshots and a string for restores; 0 tells nothing."""
    text = str(item.get("PercentProgress") or "")
    return int(text) if text.isdigit() and int(text) else None
