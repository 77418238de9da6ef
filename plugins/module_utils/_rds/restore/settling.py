# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring an instance or a cluster to what is wanted of it, step by step, each looking before it acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import (
    ClientError,
    Rds,
    error_code,
    tag_list,
    tags_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import Kind, busy
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import differences, modify_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import Setting

# Right after a restore AWS shows "available" and refuses changes for a moment; longer than this it is something else.
REFUSED_AT_MOST = 900.0
_ALREADY = ("DBInstanceRoleAlreadyExists", "DBClusterRoleAlreadyExists")


class Reconciler:
    """One instance or cluster, known by its resource ID, while it is brought to what is wanted."""

    def __init__(self, rds: Rds, waiting: Waiting, kind: Kind, identifier: str, resource_id: str) -> None:
        self.rds = rds
        self.waiting = waiting
        self.kind = kind
        self.identifier = identifier
        self.resource_id = resource_id
        self._safe = (
            f"The source of {identifier} is untouched; {identifier} serves nobody until somebody points an application "
            "at it."
        )

    def now(self) -> Optional[dict[str, Any]]:
        """What AWS shows of it."""
        return self.kind.find_by_resource_id(self.rds, self.resource_id)

    def available(self, what: str) -> dict[str, Any]:
        """Wait until it can be used; what AWS shows then."""
        found = self.waiting.until(what, lambda: self.kind.look(self.now(), self.identifier), self._safe)
        return dict(found)

    def change(self, method: str, **arguments: Any) -> None:
        """A call that changes it, asked again as long as it is busy with what went before."""

        def attempt() -> Status:
            try:
                self.rds.call(method, **{self.kind.identifier: self.identifier}, **arguments)
            except ClientError as error:
                if busy(error):
                    return Status(f"busy: {busy(error)}", False)
                if error_code(error) in _ALREADY:
                    return Status("done already", True)
                raise
            return Status("accepted", True)

        patient = replace(self.waiting, timeout=min(self.waiting.timeout, REFUSED_AT_MOST))
        patient.until(f"a change of {self.identifier} ({method})", attempt, self._safe)

    def bring(self, table: Iterable[Setting], wanted: Mapping[str, Any]) -> list[str]:
        """Change what is not as wanted and wait until nothing is pending; names of the settings that were changed."""
        table = tuple(table)
        takes = self.rds.takes(self.kind.modify)
        described = self.available(f"{self.identifier} before its settings are changed")
        changes = differences(table, wanted, described, takes)
        if changes:
            self.change(self.kind.modify, ApplyImmediately=True, **modify_arguments(changes, wanted, described))
        self.waiting.until(
            f"settings of {self.identifier}", lambda: self._look_at_settings(table, wanted, takes), self._safe
        )
        return [setting.option for setting in changes]

    def _look_at_settings(self, table: Iterable[Setting], wanted: Mapping[str, Any], takes: frozenset[str]) -> Status:
        described = self.now()
        seen = self.kind.look(described, self.identifier)
        if not seen.done or described is None:
            return seen
        pending = [name for name, value in (described.get("PendingModifiedValues") or {}).items() if value is not None]
        left = [setting.option for setting in differences(table, wanted, described, takes)]
        if pending or left:
            return Status(f"{seen.status}, pending: {', '.join(sorted({*pending, *left}))}", False)
        return seen

    def set_password(self, password: str) -> None:
        """Give the master user another password, and wait until that has been done."""
        self.change(self.kind.modify, ApplyImmediately=True, MasterUserPassword=password)
        self.waiting.until(
            f"password of {self.identifier}", lambda: self._look_at_settings((), {}, frozenset()), self._safe
        )

    def add_roles(self, wanted: Iterable[Mapping[str, str]]) -> list[str]:
        """Associate the IAM roles that are missing, and wait until all are active; ARNs of those that were added."""
        wanted = list(wanted)
        there = {
            (role.get("RoleArn"), role.get("FeatureName") or "")
            for role in (self.now() or {}).get("AssociatedRoles") or []
        }
        missing = [role for role in wanted if (role["role_arn"], role.get("feature_name") or "") not in there]
        for role in missing:
            self.change(self.kind.add_role, RoleArn=role["role_arn"], FeatureName=role.get("feature_name") or None)
        if wanted:
            arns = {role["role_arn"] for role in wanted}
            self.waiting.until(f"IAM roles of {self.identifier}", lambda: self._look_at_roles(arns), self._safe)
        return [role["role_arn"] for role in missing]

    def _look_at_roles(self, arns: set[str]) -> Status:
        described = self.now()
        seen = self.kind.look(described, self.identifier)
        shown = {role.get("RoleArn"): role.get("Status") for role in (described or {}).get("AssociatedRoles") or []}
        for arn in sorted(arns):
            if shown.get(arn) == "INVALID":
                raise RecoveryError(
                    f"{self.kind.noun} {self.identifier} cannot use the IAM role {arn} (status INVALID). {self._safe} "
                    "Check that the role exists and that rds.amazonaws.com may assume it, then run the same again; or "
                    "leave it out with associated_roles."
                )
            if shown.get(arn) != "ACTIVE":
                return Status(f"{arn} is {shown.get(arn) or 'not there yet'}", False)
        return seen

    def reboot_if_pending(self, status: Callable[[], str]) -> bool:
        """Reboot when its parameter group waits for that, and wait until the group is in use. Whether it was done.

        ``status`` says how the parameter group is applied now.
        """

        def applied() -> Status:
            seen = self.kind.look(self.now(), self.identifier)
            return replace(seen, done=seen.done and status() != "applying")

        self.waiting.until(f"parameter group of {self.identifier}", applied, self._safe)
        if status() != "pending-reboot":
            return False
        self.change("reboot_db_instance")

        def in_sync() -> Status:
            seen = self.kind.look(self.now(), self.identifier)
            group = status()
            return Status(f"{seen.status}, parameter group {group}", seen.done and group == "in-sync", None, seen.found)

        self.waiting.until(f"reboot of {self.identifier}", in_sync, self._safe)
        return True

    def group_status(self) -> str:
        """How an instance's parameter group is applied: ``in-sync``, ``applying`` or ``pending-reboot``."""
        return worst(group.get("ParameterApplyStatus") for group in (self.now() or {}).get("DBParameterGroups") or [])

    def tag(self, tags: Mapping[str, str]) -> bool:
        """Set the tags that are missing or other; whether there were any."""
        described = self.now() or {}
        there = tags_of(described.get("TagList"))
        missing = {key: text for key, text in tags.items() if there.get(key) != text}
        if missing:
            self.rds.call("add_tags_to_resource", ResourceName=described[self.kind.arn], Tags=tag_list(missing))
        return bool(missing)


def worst(statuses: Iterable[Optional[str]]) -> str:
    """The state of several parameter groups together."""
    shown = set(statuses)
    return next((status for status in ("applying", "pending-reboot") if status in shown), "in-sync")
