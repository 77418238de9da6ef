# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A parameter group that is another one's copy with some parameters changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import (
    ClientError,
    Rds,
    error_text,
    tag_list,
    tags_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import busy, code_of, when_allowed
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.isolate import isolated_parameters

# Kept as a tag of a group that isolates copies: the group it was made of. Production never uses one with this tag.
ISOLATES = "dbre:isolates"
# ModifyDBParameterGroup takes no more at once.
AT_ONCE = 20
# A database that is gone, or has another group now, counts as a user of its group for minutes; longer, and it is used.
COUNTED_AT_MOST = 300.0


@dataclass(frozen=True)
class Kind:
    """How AWS calls the parts of a parameter group of instances, or of clusters."""

    noun: str
    name: str
    arn: str
    describe: str
    groups: str
    parameters: str
    create: str
    modify: str
    copy: str
    delete: str
    of_copy: str
    defaults: str


KINDS = {
    "instance": Kind(
        "parameter group",
        "DBParameterGroupName",
        "DBParameterGroupArn",
        "describe_db_parameter_groups",
        "DBParameterGroups",
        "describe_db_parameters",
        "create_db_parameter_group",
        "modify_db_parameter_group",
        "copy_db_parameter_group",
        "delete_db_parameter_group",
        "DBParameterGroup",
        "describe_engine_default_parameters",
    ),
    "cluster": Kind(
        "cluster parameter group",
        "DBClusterParameterGroupName",
        "DBClusterParameterGroupArn",
        "describe_db_cluster_parameter_groups",
        "DBClusterParameterGroups",
        "describe_db_cluster_parameters",
        "create_db_cluster_parameter_group",
        "modify_db_cluster_parameter_group",
        "copy_db_cluster_parameter_group",
        "delete_db_cluster_parameter_group",
        "DBClusterParameterGroup",
        "describe_engine_default_cluster_parameters",
    ),
}


def text_of(value: Any) -> str:
    """A value as RDS takes it: booleans are 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _passes(error: BaseException) -> Optional[str]:
    """What AWS says while a parameter group still counts as used."""
    return error_text(error) if code_of(error) == "InvalidDBParameterGroupState" else busy(error)


@dataclass(frozen=True)
class Wanted:
    """What a group is to be: a copy of ``source``, or a new one of ``family``, with ``parameters`` of its own."""

    source: Optional[str] = None
    family: Optional[str] = None
    isolate: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    description: Optional[str] = None


class ParameterGroup:
    """One parameter group of a ``kind`` of KINDS. Its methods return the result of the module."""

    def __init__(self, kind: str, name: str, rds: Rds, waiting: Waiting, check_mode: bool = False) -> None:
        self.rds = rds
        self.waiting = waiting
        self.check_mode = check_mode
        self.of = kind
        self.kind = KINDS[kind]
        self.name = name.lower()

    def _find(self, name: str) -> Optional[dict[str, Any]]:
        return next(self.rds.all(self.kind.describe, self.kind.groups, **{self.kind.name: name}), None)

    def _parameters(self, name: str, source: Optional[str] = None) -> dict[str, dict[str, Any]]:
        found = self.rds.all(self.kind.parameters, "Parameters", Source=source, **{self.kind.name: name})
        return {parameter["ParameterName"]: parameter for parameter in found}

    def absent(self) -> dict[str, Any]:
        """Ensure that it is gone."""
        found = self._find(self.name)
        if found is not None and not self.check_mode:
            self._delete()
        return {"changed": found is not None, "name": self.name}

    def _delete(self) -> None:
        """Delete it, asked again while a database that is gone still counts as its user."""

        def call() -> dict[str, Any]:
            try:
                return self.rds.call(self.kind.delete, **{self.kind.name: self.name})
            except ClientError as error:
                if code_of(error) != "DBParameterGroupNotFound":
                    raise
                return {}  # a call before this one was heard after all

        databases = {
            "instance": "DBInstances[].[DBInstanceIdentifier,DBParameterGroups[].DBParameterGroupName]",
            "cluster": "DBClusters[].[DBClusterIdentifier,DBClusterParameterGroup]",
        }[self.of]
        safe = (
            "It is still there, unchanged: what uses it must have another group first. See: aws rds describe-db-"
            f"{self.of}s --region {self.rds.region} --query '{databases}'."
        )
        patient = replace(self.waiting, timeout=min(self.waiting.timeout, COUNTED_AT_MOST))
        when_allowed(patient, f"removal of {self.kind.noun} {self.name}", call, safe, _passes)

    def present(self, wish: Wanted) -> dict[str, Any]:
        """Ensure that it is there as it is wanted."""
        source, family = self._source(wish)
        found = self._find(self.name)
        if found is not None and found["DBParameterGroupFamily"] != family:
            raise RecoveryError(
                f"{self.kind.noun} {self.name} is of family {found['DBParameterGroupFamily']}, not {family}, and a "
                "family cannot be changed. It was not touched. Give another name."
            )
        model = self._parameters(source) if source else {}
        tags = {str(key): str(text) for key, text in wish.tags.items()}
        if wish.isolate:
            tags[ISOLATES] = str(source)
        there = self._tags(found)
        if found is not None and wish.isolate and ISOLATES not in there:
            raise RecoveryError(
                f"{self.kind.noun} {self.name} is there and was not made to isolate copies (it has no tag {ISOLATES}); "
                "whatever uses it would lose its subscriptions. It was not touched. Give another name."
            )
        wanted = self._wanted(wish, model)
        now = self._parameters(self.name) if found is not None else dict(model)
        known = now or self._family_parameters(family)
        changes = self._changes(wanted, known)
        missing_tags = {key: text for key, text in tags.items() if there.get(key) != text}
        result: dict[str, Any] = {
            "changed": found is None or bool(changes) or bool(missing_tags),
            "name": self.name,
            "family": family,
            "created": found is None,
            "parameters": {name: parameter["ParameterValue"] for name, parameter in changes.items()},
            "diff": {
                "before": {name: known[name].get("ParameterValue") for name in changes} if found is not None else {},
                "after": {name: parameter["ParameterValue"] for name, parameter in changes.items()},
            },
        }
        if self.check_mode:
            return result
        if found is None:
            self._make(source, family, tags, wish.description)
        elif missing_tags:
            self.rds.call("add_tags_to_resource", ResourceName=found[self.kind.arn], Tags=tag_list(missing_tags))
        self._modify(changes)
        return {**result, "arn": (self._find(self.name) or {}).get(self.kind.arn)}

    def _source(self, wish: Wanted) -> tuple[Optional[str], str]:
        """The group to copy and its family; RecoveryError when there is none."""
        source = wish.source
        if not source:
            return None, str(wish.family)
        if str(source).lower() == self.name:
            raise RecoveryError(
                f"{self.name} cannot be a copy of itself: whatever uses it would be changed. It was not touched. Give "
                "another name."
            )
        found = self._find(str(source))
        if found is None:
            raise RecoveryError(
                f"there is no {self.kind.noun} {source} in {self.rds.region}. Nothing was changed. List: aws rds "
                f"{self.kind.describe.replace('_', '-')} --region {self.rds.region}"
            )
        return str(source), str(found["DBParameterGroupFamily"])

    def _wanted(self, wish: Wanted, model: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Parameters that are to have a value of their own."""
        wanted = {
            name: str(parameter["ParameterValue"])
            for name, parameter in model.items()
            if parameter.get("Source") == "user" and parameter.get("ParameterValue") is not None
        }
        if wish.isolate:
            wanted.update(isolated_parameters(model.values()))
        wanted.update({name: text_of(value) for name, value in wish.parameters.items()})
        return wanted

    def _family_parameters(self, family: str) -> dict[str, dict[str, Any]]:
        """Parameters that a new group of a family has."""
        found: dict[str, dict[str, Any]] = {}
        marker: Optional[str] = None
        while True:
            page = self.rds.call(self.kind.defaults, DBParameterGroupFamily=family, Marker=marker)["EngineDefaults"]
            found.update({parameter["ParameterName"]: parameter for parameter in page.get("Parameters") or []})
            marker = page.get("Marker")
            if not marker:
                return found

    def _changes(self, wanted: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
        """Parameters to modify, as the API takes them; RecoveryError for one that cannot be."""
        unknown = sorted(name for name in wanted if name not in known)
        fixed = sorted(name for name in wanted if name in known and known[name].get("IsModifiable") is False)
        fixed = [name for name in fixed if known[name].get("ParameterValue") != wanted[name]]
        if unknown or fixed:
            why = "there is no such parameter" if unknown else "RDS does not let it be changed"
            raise RecoveryError(
                f"{', '.join(unknown or fixed)}: {why} in {self.kind.noun} {self.name}. Nothing was changed. List: aws "
                f"rds {self.kind.parameters.replace('_', '-')}"
            )
        return {
            name: {
                "ParameterName": name,
                "ParameterValue": value,
                # A static parameter that is asked to change at once is an error of the whole call.
                "ApplyMethod": "immediate" if known[name].get("ApplyType") == "dynamic" else "pending-reboot",
            }
            for name, value in sorted(wanted.items())
            if known[name].get("ParameterValue") != value
        }

    def _tags(self, found: Optional[Mapping[str, Any]]) -> dict[str, str]:
        if found is None:
            return {}
        return tags_of(self.rds.call("list_tags_for_resource", ResourceName=found[self.kind.arn]).get("TagList"))

    def _make(self, source: Optional[str], family: str, tags: Mapping[str, str], description: Optional[str]) -> None:
        description = description or (f"Copy of {source}" if source else f"For {family}")
        if source and not source.startswith("default."):
            arguments = {
                f"Source{self.kind.of_copy}Identifier": source,
                f"Target{self.kind.of_copy}Identifier": self.name,
                f"Target{self.kind.of_copy}Description": description,
            }
            self.rds.call(self.kind.copy, Tags=tag_list(tags), **arguments)
            return
        # AWS copies none of its default groups; a new one of the family is the same.
        self.rds.call(
            self.kind.create,
            DBParameterGroupFamily=family,
            Description=description,
            Tags=tag_list(tags),
            **{self.kind.name: self.name},
        )

    def _modify(self, changes: Mapping[str, Mapping[str, str]]) -> None:
        """Modify, and read back until AWS shows it: an instance made before that would start without."""
        listed = list(changes.values())
        for begin in range(0, len(listed), AT_ONCE):
            self.rds.call(self.kind.modify, Parameters=listed[begin : begin + AT_ONCE], **{self.kind.name: self.name})
        if not changes:
            return

        def read_back() -> Status:
            now = self._parameters(self.name, "user")
            left = [
                name
                for name, parameter in changes.items()
                if (now.get(name) or {}).get("ParameterValue") != parameter["ParameterValue"]
            ]
            return Status(f"waiting for {', '.join(left)}" if left else "set", not left)

        self.waiting.until(f"{self.kind.noun} {self.name}", read_back, "Nothing uses it yet.")
