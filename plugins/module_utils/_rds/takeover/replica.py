# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a read replica of an instance under a name that a replica of another instance may still have.

Read replicas stay with an instance that is renamed. After a takeover their names belong to replicas of the database
that is kept, so those are renamed too and new ones are made, with the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError, Rds, error_text, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    INSTANCE,
    busy,
    code_of,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_identifier
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import plan_settings, restore_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import INSTANCE as SETTINGS
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settling import Reconciler

_TAKEN = "DBInstanceAlreadyExists"  # what AWS says of a name
# The name that a replica had before it was put aside, so that an undo finds it.
NAMED = "dbre:replica-name"
# A replica has none of its own, or takes them from its source.
_OF_SOURCE = ("backup_retention_period", "preferred_backup_window", "allocated_storage", "db_subnet_group_name")


@dataclass
class Replica:
    """One name, the instance it is to replicate, and the name for another's replica that is in the way."""

    rds: Rds
    waiting: Waiting
    name: str
    source: str
    kept: str
    check_mode: bool = False
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = check_identifier(self.name, "db_instance_identifier")
        self.kept = check_identifier(self.kept, "kept_identifier")

    def run(self) -> dict[str, Any]:
        """Ensure it; the module's result."""
        source = self.rds.instance(self.source)
        if source is None:
            raise RecoveryError(
                f"there is no DB instance {self.source} in {self.rds.region} to replicate. Nothing was changed. See: "
                "aws rds describe-db-instances --query 'DBInstances[].DBInstanceIdentifier'"
            )
        found = self.rds.instance(self.name)
        if found is not None and self._follows(found):
            return self._result(self._settler(found).available(f"read replica {self.name}"))
        aside = self._aside(source)
        if aside is None and source.get("BackupRetentionPeriod") == 0:
            raise RecoveryError(
                f"DB instance {self.source} has no automated backups, without which AWS makes no replica of it. "
                "Nothing was changed. Switch them on with dbre.recovery.rds_backup_settings, then run the same again."
            )
        if found is not None:
            self._put_aside(found)
        if aside is not None:
            return self._result(self._rename(aside, self.name))
        model = found or self.rds.instance(self.kept)
        if model is None:
            raise RecoveryError(
                f"there is no DB instance {self.name} and none {self.kept} whose settings a replica of {self.source} "
                "could have. Nothing was changed. Make it by hand: aws rds create-db-instance-read-replica "
                f"--db-instance-identifier {self.name} --source-db-instance-identifier {self.source}"
            )
        return self._result(self._make(model, source))

    def _follows(self, instance: Mapping[str, Any]) -> bool:
        # A replica in another region tells the ARN of its source.
        return str(instance.get("ReadReplicaSourceDBInstanceIdentifier") or "").rpartition(":")[2] == self.source

    def _settler(self, instance: Mapping[str, Any]) -> Reconciler:
        return Reconciler(
            self.rds,
            self.waiting,
            INSTANCE,
            str(instance["DBInstanceIdentifier"]),
            str(instance["DbiResourceId"]),
        )

    def _aside(self, source: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """The replica of the source that once had this name and was put aside."""
        for identifier in source.get("ReadReplicaDBInstanceIdentifiers") or []:
            replica = self.rds.instance(identifier)
            if replica is not None and tags_of(replica.get("TagList")).get(NAMED) == self.name:
                return replica
        return None

    def _put_aside(self, found: Mapping[str, Any]) -> None:
        if not found.get("ReadReplicaSourceDBInstanceIdentifier"):
            raise RecoveryError(
                f"DB instance {self.name} replicates nothing, so it is no read replica that could be replaced. It was "
                f"not touched. Give another name to the replica of {self.source}."
            )
        taken = self.rds.instance(self.kept)
        if taken is not None:
            raise RecoveryError(
                f"kept_identifier {self.kept} is taken ({taken.get('DbiResourceId')}). Nothing was changed. Give "
                "another."
            )
        if not self.check_mode:
            self._settler(found).tag({NAMED: self.name})
        self._rename(found, self.kept)

    def _rename(self, instance: Mapping[str, Any], name: str) -> dict[str, Any]:
        self.steps.append(f"{instance['DBInstanceIdentifier']} renamed to {name}")
        if self.check_mode:
            return dict(instance)
        settler = self._settler(instance)
        settler.available(f"read replica {settler.identifier}")
        settler.change(INSTANCE.modify, NewDBInstanceIdentifier=name, ApplyImmediately=True)

        def look() -> Status:
            seen = INSTANCE.look(settler.now(), name)
            return Status(
                seen.status, seen.done and (seen.found or {}).get(INSTANCE.identifier) == name, found=seen.found
            )

        return dict(self.waiting.until(f"rename of a read replica to {name}", look, "All data is where it was."))

    def _make(self, model: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
        self.steps.append(f"{self.name} made, a replica of {self.source}")
        if self.check_mode:
            return {}
        # The size is the source's, and tells which speeds of storage are settings and which a baseline.
        planned = plan_settings(SETTINGS, model, {"allocated_storage": source.get("AllocatedStorage")}).wanted
        wanted = {option: value for option, value in planned.items() if option not in _OF_SOURCE}
        wanted["tags"] = {key: text for key, text in (wanted.get("tags") or {}).items() if key != NAMED}
        safe = f"Nothing was made yet; {self.source} serves as before."
        INSTANCE.wait_available(self.rds, self.waiting, self.source, safe)
        # The status may be another again before the call arrives.
        made = when_allowed(
            self.waiting, f"begin of a replica of {self.source}", lambda: self._create(wanted), safe, _passes
        )
        settler = self._settler(made)
        settler.available(f"read replica {self.name}")
        settler.bring(SETTINGS, wanted)
        settler.add_roles(wanted.get("associated_roles") or [])
        return settler.available(f"read replica {self.name}")

    def _create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        method = "create_db_instance_read_replica"
        arguments = restore_arguments(SETTINGS, wanted, self.rds.takes(method))
        try:
            made = self.rds.call(
                method, DBInstanceIdentifier=self.name, SourceDBInstanceIdentifier=self.source, **arguments
            )["DBInstance"]
        except ClientError as error:
            made = self.rds.instance(self.name) if code_of(error) == _TAKEN else None
            if made is None:
                raise
            # A call that was asked again because its answer got lost has made the replica itself.
            if not self._follows(made):
                raise RecoveryError(
                    f"DB instance {self.name} was made by somebody else meanwhile and does not replicate "
                    f"{self.source}. It was not touched. Look at it, and run the same again when the name is free."
                ) from error
        return dict(made)

    def _result(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {"changed": bool(self.steps), "steps": self.steps, "instance": dict(instance)}


def _passes(error: BaseException) -> Optional[str]:
    """What AWS says while the source is busy, or while a name that nobody has any more still counts as taken."""
    return error_text(error) if code_of(error) == _TAKEN else busy(error)
