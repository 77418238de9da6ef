# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manual snapshots of instances and clusters: one that is wanted is there and complete, or an error says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_text, tag_list, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    CLUSTER,
    INSTANCE,
    Kind,
    busy,
    code_of,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import (
    LONGEST,
    LONGEST_SNAPSHOT,
    check_identifier,
    iso,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_snapshot
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

UNTOUCHED = "The database itself is untouched."
Snapshot = Mapping[str, Any]


@dataclass(frozen=True)
class SnapshotKind:
    """Snapshots of one kind of database, in the words of the API."""

    of: Kind
    option: str
    identifier: str  # keys of what a describe call answers
    arn: str
    copied_from: str
    encrypted: str
    create: str  # methods of the client
    delete: str
    copy: str
    arn_type: str
    cli: str
    longest: int

    def find(self, rds: Rds, identifier: str) -> Optional[dict[str, Any]]:
        """A snapshot by identifier or ARN."""
        return rds.snapshot(identifier) if self.of is INSTANCE else rds.cluster_snapshot(identifier)

    def check_name(self, identifier: str) -> str:
        """The name of a manual snapshot, as AWS stores it."""
        return check_identifier(identifier, self.option, self.longest)


OF_INSTANCE = SnapshotKind(
    of=INSTANCE,
    option="db_snapshot_identifier",
    identifier="DBSnapshotIdentifier",
    arn="DBSnapshotArn",
    copied_from="SourceDBSnapshotIdentifier",
    encrypted="Encrypted",
    create="create_db_snapshot",
    delete="delete_db_snapshot",
    copy="copy_db_snapshot",
    arn_type="snapshot",
    cli="db-snapshot",
    longest=LONGEST_SNAPSHOT,
)
OF_CLUSTER = SnapshotKind(
    of=CLUSTER,
    option="db_cluster_snapshot_identifier",
    identifier="DBClusterSnapshotIdentifier",
    arn="DBClusterSnapshotArn",
    copied_from="SourceDBClusterSnapshotArn",
    encrypted="StorageEncrypted",
    create="create_db_cluster_snapshot",
    delete="delete_db_cluster_snapshot",
    copy="copy_db_cluster_snapshot",
    arn_type="cluster-snapshot",
    cli="db-cluster-snapshot",
    longest=LONGEST,
)


def facts(kind: SnapshotKind, snapshot: Snapshot) -> dict[str, Any]:
    """What people want to know of a snapshot: ``size_gb`` is the storage of the database, times are ISO 8601 in UTC."""
    return {
        "identifier": snapshot.get(kind.identifier),
        "arn": snapshot.get(kind.arn),
        "status": snapshot.get("Status"),
        "type": snapshot.get("SnapshotType"),
        "source": snapshot.get(kind.of.identifier),
        "resource_id": snapshot.get(kind.of.resource_id),
        "copied_from": snapshot.get(kind.copied_from) or None,
        "engine": snapshot.get("Engine"),
        "engine_version": snapshot.get("EngineVersion"),
        "size_gb": snapshot.get("AllocatedStorage"),
        "encrypted": bool(snapshot.get(kind.encrypted)),
        "kms_key_id": snapshot.get("KmsKeyId") or None,
        "time": iso(snapshot.get("SnapshotCreateTime")),
        # Of a copy, the moment of its data. AWS tells it of snapshots of instances only.
        "original_time": iso(snapshot.get("OriginalSnapshotCreateTime") or snapshot.get("SnapshotCreateTime")),
        "tags": tags_of(snapshot.get("TagList")),
    }


@dataclass(frozen=True)
class Existing:
    """A snapshot under the wanted name (None: free), whether it is worth nothing, and its status at first."""

    snapshot: Optional[Snapshot]
    replace: bool
    status: str


class Snapshots:
    """Snapshots of one kind in one region, and how to wait for them."""

    def __init__(self, rds: Rds, waiting: Waiting, kind: SnapshotKind) -> None:
        self.rds = rds
        self.waiting = waiting
        self.kind = kind

    def find(self, identifier: str) -> Optional[dict[str, Any]]:
        return self.kind.find(self.rds, identifier)

    def wait(self, identifier: str, what: str) -> dict[str, Any]:
        """The snapshot, once it is complete."""

        def look() -> Status:
            found = self.find(identifier)
            if (found or {}).get("Status") == "failed":
                raise RecoveryError(
                    f"{what} has failed (status 'failed'); it holds nothing. {UNTOUCHED} Run the same again: the "
                    f"failed one is deleted and another one made. If that fails too, see: aws rds describe-events "
                    f"--source-type {self.kind.cli} --source-identifier {identifier} --region {self.rds.region}",
                    status="failed",
                )
            return look_at_snapshot(found, identifier)

        return dict(self.waiting.until(what, look, UNTOUCHED))

    def wait_gone(self, identifier: str) -> None:
        """Return once there is no snapshot of that name any more."""

        def look() -> Status:
            found = self.find(identifier)
            return Status(str(found["Status"]) if found else "deleted", found is None)

        self.waiting.until(f"deletion of snapshot {identifier}", look, UNTOUCHED)

    def remove(self, identifier: str) -> None:
        """Delete a snapshot and wait until its name is free. One that is gone already is no error."""
        call = self.kind.delete

        def delete() -> dict[str, Any]:
            try:
                return self.rds.call(call, **{self.kind.identifier: identifier})
            except ClientError as error:
                if code_of(error) in ("DBSnapshotNotFound", "DBClusterSnapshotNotFound"):
                    return {}
                raise

        when_allowed(self.waiting, f"deletion of snapshot {identifier}", delete, UNTOUCHED)
        self.wait_gone(identifier)

    def make(
        self,
        identifier: str,
        what: str,
        ours: Callable[[Snapshot], bool],
        request: Callable[[], dict[str, Any]],
        passing: Callable[[BaseException], Optional[str]],
    ) -> dict[str, Any]:
        """Ask AWS for the snapshot and wait until it is complete; ``ours`` tells it from others of the same name."""
        try:
            when_allowed(self.waiting, f"begin of {what}", request, UNTOUCHED, passing)
        except ClientError as error:
            code = code_of(error)
            if code == "SnapshotQuotaExceeded":
                raise quota_exceeded(error, self.rds.region) from error
            if code not in ("DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExists"):
                raise
            # Taken by an answer that got lost, or by somebody else between the look and the call.
            found = self.find(identifier)
            if found is None or not ours(found):
                raise name_taken(self.kind, identifier, found, self.rds.region) from error
        return self.wait(identifier, what)

    def existing(self, identifier: str, ours: Callable[[Snapshot], bool], what: str, check_mode: bool) -> Existing:
        """What is there under that name. Waits for what is under way; in check mode it only looks.

        Raises RecoveryError when the name belongs to a snapshot of something else.
        """
        found = self.find(identifier)
        status = str((found or {}).get("Status", "absent"))
        if found is None or status == "deleting":
            if found and not check_mode:
                self.wait_gone(identifier)
            return Existing(None, replace=False, status=status)
        if not ours(found):
            raise name_taken(self.kind, identifier, found, self.rds.region)
        if status == "failed":
            return Existing(found, replace=True, status=status)
        complete = check_mode or status == "available"
        return Existing(found if complete else self.wait(identifier, what), replace=False, status=status)


def name_taken(kind: SnapshotKind, identifier: str, found: Optional[Snapshot], region: str) -> RecoveryError:
    """The error for a name that belongs to another snapshot."""
    source = (found or {}).get(kind.of.identifier, "something else")
    resource_id = (found or {}).get(kind.of.resource_id, "unknown")
    return RecoveryError(
        f"the name {identifier} is taken in {region} by a snapshot of {source} (resource id {resource_id}, type "
        f"{(found or {}).get('SnapshotType', 'unknown')}). It is untouched, and nothing was changed. Give another name."
    )


def quota_exceeded(error: BaseException, region: str) -> RecoveryError:
    """The error for an account that has no room for another manual snapshot."""
    return RecoveryError(
        f"AWS takes no further manual snapshot in {region}: {error_text(error)}. {UNTOUCHED} Remove old ones "
        "(dbre.recovery.rds_snapshot_prune never removes the last good one), or have the quota raised: aws "
        f"service-quotas list-service-quotas --service-code rds --region {region}"
    )


def ensure_snapshot(
    snapshots: Snapshots,
    source: str,
    identifier: str,
    resource_id: Optional[str],
    tags: Mapping[str, Any],
    check_mode: bool,
) -> dict[str, Any]:
    """A complete manual snapshot of ``source`` under that name; the module's result.

    With ``resource_id`` the source is found by it, whatever its name is now: a run that goes on after a swap of
    identifiers must neither take the new database for the old one nor snapshot it again.
    """
    kind, waiting, rds = snapshots.kind, snapshots.waiting, snapshots.rds
    identifier = kind.check_name(identifier)
    found = kind.of.find_by_resource_id(rds, resource_id) if resource_id else kind.of.find(rds, source)
    wanted = resource_id or (found or {}).get(kind.of.resource_id)
    began = waiting.clock()

    def ours(snapshot: Snapshot) -> bool:
        manual = snapshot.get("SnapshotType", "manual") == "manual"
        # Of a source that is gone, the name is all there is to compare.
        same = snapshot.get(kind.of.resource_id) == wanted if wanted else snapshot.get(kind.of.identifier) == source
        return manual and same

    what = f"snapshot {identifier} of {source}"
    existing = snapshots.existing(identifier, ours, what, check_mode)
    result: dict[str, Any] = {"changed": False, "snapshot": None, "replaced_failed": existing.replace, "seconds": 0.0}
    result["diff"] = {"before": {"status": existing.status}, "after": {"status": "available"}}
    if existing.snapshot and not existing.replace:
        result["snapshot"] = facts(kind, existing.snapshot)
        result["seconds"] = round(waiting.clock() - began, 1)
        return result
    found = found or kind.of.require(rds, source, resource_id)
    result["changed"] = True
    if check_mode:
        return result
    if existing.replace:
        snapshots.remove(identifier)
    name = str(found[kind.of.identifier])
    kind.of.wait_available(rds, waiting, name, "No snapshot was taken yet.", str(found[kind.of.resource_id]))
    request = {kind.identifier: identifier, kind.of.identifier: name, "Tags": tag_list(tags) or None}
    taken = snapshots.make(identifier, what, ours, lambda: rds.call(kind.create, **request), passing=busy)
    result["snapshot"] = facts(kind, taken)
    result["seconds"] = round(waiting.clock() - began, 1)
    return result


def ensure_absent(
    snapshots: Snapshots, source: str, identifier: str, resource_id: Optional[str], check_mode: bool
) -> dict[str, Any]:
    """No snapshot of ``source`` under that name; one of something else is refused. The module's result."""
    kind, rds = snapshots.kind, snapshots.rds
    identifier = kind.check_name(identifier)
    found = snapshots.find(identifier)
    result: dict[str, Any] = {"changed": found is not None, "snapshot": facts(kind, found) if found else None}
    result["diff"] = {"before": {"status": (found or {}).get("Status", "absent")}, "after": {"status": "absent"}}
    if found is None:
        return result
    wanted = resource_id or (kind.of.find(rds, source) or {}).get(kind.of.resource_id)
    if found.get(kind.of.resource_id) != wanted and found.get(kind.of.identifier) != source:
        raise name_taken(kind, identifier, found, rds.region)
    if not check_mode:
        if found.get("Status") == "creating":
            snapshots.wait(identifier, f"snapshot {identifier}, before it can be deleted")
        snapshots.remove(identifier)
    return result
