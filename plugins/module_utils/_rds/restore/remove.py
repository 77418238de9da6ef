# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove a restored copy and nothing else: it must say itself that it is one, under this name, of this incident."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError, Rds, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    CLUSTER,
    INSTANCE,
    Kind,
    code_of,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_identifier
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import Provenance, provenance
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import is_aurora

# AWS deletes these only without a final snapshot (DeleteDBInstance in the RDS API reference).
BROKEN = ("failed", "incompatible-network", "incompatible-restore")
_SAFE = "Nothing else is touched."


def ensure_absent(
    kind: Kind,
    identifier: str,
    incident: str,
    rds: Rds,
    waiting: Waiting,
    *,
    final_snapshot: Optional[str] = None,
    unprotect: bool = False,
    check_mode: bool = False,
) -> dict[str, Any]:
    """Ensure that the copy restored for ``incident`` is gone; the result of the module.

    Raises RecoveryError for anything else of that identifier, and for one that is protected from deletion, unless it
    is to be unprotected.
    """
    target = check_identifier(identifier, kind.option)
    found = kind.find(rds, target)
    result: dict[str, Any] = {"changed": found is not None, "action": "none" if found is None else "remove"}
    if found is None:
        return result
    origin = _refuse_others(kind, target, found, incident, unprotect)
    if final_snapshot and _status(found) in BROKEN:
        raise RecoveryError(
            f"{kind.noun} {target} is in status '{_status(found)}', of which AWS makes no snapshot. It was not "
            "touched. Leave final_snapshot_identifier out."
        )
    result.update({kind.word: found, "restored_from": origin.name, "restored_to": origin.moment.rpartition(" ")[2]})
    if check_mode:
        return result
    if _status(found) != "deleting":
        if found.get("DeletionProtection"):
            _unprotect(kind, found, rds, waiting)
        _delete(kind, found, rds, waiting, final_snapshot)
    resource_id = str(found[kind.resource_id])
    waiting.until(
        f"removal of {target}",
        lambda: _look_gone(kind.find_by_resource_id(rds, resource_id)),
        _SAFE,
    )
    return result


def _status(found: Mapping[str, Any]) -> str:
    return str(found.get("DBInstanceStatus") or found.get("Status") or "")


def _refuse_others(kind: Kind, target: str, found: Mapping[str, Any], incident: str, unprotect: bool) -> Provenance:
    origin = provenance(tags_of(found.get("TagList")))
    kept = "It was not touched."
    if origin is None:
        raise RecoveryError(
            f"{kind.noun} {target} is no restored copy: it has no tag dbre:restored-from. {kept} Only copies that "
            "dbre.recovery.rds_restore made are removed by it; remove anything else by hand."
        )
    if not incident or origin.incident != incident:
        raise RecoveryError(
            f"{kind.noun} {target} was restored for incident {origin.incident or '(none)'}, not for "
            f"{incident or '(none)'}. {kept} Give the incident it was made for: incident: {origin.incident}"
        )
    if origin.target != target:
        raise RecoveryError(
            f"{kind.noun} {target} was restored as {origin.target} and has been renamed since: it has taken a place in "
            f"production. {kept} If nobody needs it, remove it by hand."
        )
    if found.get("DeletionProtection") and not unprotect:
        raise RecoveryError(
            f"{kind.noun} {target} is protected from deletion. {kept} If nobody needs it: aws rds "
            f"modify-db-{kind.word} --db-{kind.word}-identifier {target} --no-deletion-protection, then run the same "
            "again."
        )
    return origin


def _unprotect(kind: Kind, found: Mapping[str, Any], rds: Rds, waiting: Waiting) -> None:
    """AWS does this at once, also without ApplyImmediately, which would apply what is pending."""
    request = {kind.identifier: str(found[kind.identifier]), "DeletionProtection": False}
    call = partial(rds.call, f"modify_db_{kind.word}", **request)
    what = f"end of the deletion protection of {found[kind.identifier]}"
    when_allowed(waiting, what, call, _SAFE)
    waiting.until(what, lambda: _look_open(kind.find_by_resource_id(rds, str(found[kind.resource_id]))), _SAFE)


def _look_open(found: Optional[Mapping[str, Any]]) -> Status:
    return Status("gone" if found is None else _status(found), found is None or not found.get("DeletionProtection"))


def _delete(kind: Kind, found: Mapping[str, Any], rds: Rds, waiting: Waiting, final: Optional[str]) -> None:
    last = (
        {"SkipFinalSnapshot": True} if not final else {"SkipFinalSnapshot": False, "FinalDBSnapshotIdentifier": final}
    )
    if kind is INSTANCE:
        _ask(INSTANCE, found, rds, waiting, DeleteAutomatedBackups=True, **last)
        return
    # Aurora refuses to delete a cluster whose members are not being deleted; those of a Multi-AZ cluster go with it.
    names = [member["DBInstanceIdentifier"] for member in found.get("DBClusterMembers") or []]
    for name in names if is_aurora(found.get("Engine")) else []:
        member = rds.instance(name)
        if member is not None:
            _ask(INSTANCE, member, rds, waiting, SkipFinalSnapshot=True)
    _ask(CLUSTER, found, rds, waiting, **last)


def _ask(kind: Kind, found: Mapping[str, Any], rds: Rds, waiting: Waiting, **arguments: Any) -> None:
    """Ask AWS to delete what was found, again as long as it is busy (a backup has begun)."""
    name, resource_id = str(found[kind.identifier]), str(found[kind.resource_id])
    looked: list[Optional[Mapping[str, Any]]] = [found]

    def call() -> dict[str, Any]:
        # While it was busy, it may have got another name, and its own may be another database's.
        now = looked.pop() if looked else kind.find_by_resource_id(rds, resource_id)
        if now is None or _status(now) == "deleting":
            return {}
        if now[kind.identifier] != name:
            raise RecoveryError(
                f"{kind.noun} {name} has been renamed to {now[kind.identifier]} meanwhile: it has taken a place in "
                "production. It was not touched. If nobody needs it, remove it by hand."
            )
        try:
            return rds.call(f"delete_db_{kind.word}", **{kind.identifier: name}, **arguments)
        except ClientError as error:
            if code_of(error) not in ("DBInstanceNotFound", "DBClusterNotFound"):
                raise
            return {}

    when_allowed(waiting, f"begin of the removal of {name}", call, _SAFE)


def _look_gone(found: Optional[Mapping[str, Any]]) -> Status:
    return Status("gone", True) if found is None else Status(_status(found), False)
