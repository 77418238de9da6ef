# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an IAM policy allows the calls that a playbook made, as far as a log of calls can tell.

What AWS checks for each action is from "Actions, resources, and condition keys for Amazon RDS" of the Service
Authorization Reference. Tags of a resource are known from the calls that made or tagged it; a condition on the tags of
anything else is not met. A condition that this module does not know is an error, never a pass.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

POLICIES = Path(__file__).resolve().parents[2] / "docs" / "iam"
ACCOUNT = "123456789012"  # of the emulator

# What a policy has to allow although no log of the emulator's can show it, and why.
UNSEEN = {
    "kms:CreateGrant": "RDS asks KMS for it in the caller's name, inside AWS; only for customer managed keys",
    "kms:DescribeKey": "RDS asks KMS for it in the caller's name, inside AWS; only for customer managed keys",
    "iam:PassRole": "checked by AWS when a call names a role; seen only if the database has one",
}
# What is called for clusters only (fullmatch): unused where the tests have instances only.
FOR_CLUSTERS = re.compile(r"rds:(\w*DBCluster\w*|CreateDBInstance)")


@dataclass(frozen=True)
class Named:
    """A resource that AWS checks: its type in ARNs, the parameters that may name it, and a name where none does.

    Without such a name the resource is checked only when the call names it.
    """

    kind: str
    parameters: tuple[str, ...]
    otherwise: Optional[str] = None


def _named(kind: str, *parameters: str, otherwise: Optional[str] = None) -> Named:
    return Named(kind, parameters, otherwise)


@dataclass(frozen=True)
class Row:
    """What AWS checks for an action; ``made`` is the resource that the call makes, which gets its tags."""

    checked: tuple[Named, ...]
    made: Optional[Named] = None

    @property
    def all(self) -> tuple[Named, ...]:
        return (*self.checked, self.made) if self.made else self.checked


_DB = _named("db", "DBInstanceIdentifier")
_CLUSTER = _named("cluster", "DBClusterIdentifier")
_SNAPSHOT = _named("snapshot", "DBSnapshotIdentifier")
_CLUSTER_SNAPSHOT = _named("cluster-snapshot", "DBClusterSnapshotIdentifier")
_PG = _named("pg", "DBParameterGroupName")
_CLUSTER_PG = _named("cluster-pg", "DBClusterParameterGroupName")
_OG = _named("og", "OptionGroupName")
_SUBGRP = _named("subgrp", "DBSubnetGroupName")
# Those that the reference marks as required are checked even where the call leaves them to AWS's default.
_PG_ALWAYS = _named("pg", "DBParameterGroupName", otherwise="default")
_CLUSTER_PG_ALWAYS = _named("cluster-pg", "DBClusterParameterGroupName", otherwise="default")
_OG_ALWAYS = _named("og", "OptionGroupName", otherwise="default")
_SUBGRP_ALWAYS = _named("subgrp", "DBSubnetGroupName", otherwise="default")
_OF_INSTANCE = (_OG_ALWAYS, _PG_ALWAYS, _SUBGRP_ALWAYS)
_OF_CLUSTER = (_CLUSTER_PG_ALWAYS, _OG_ALWAYS, _SUBGRP_ALWAYS)

ROWS = {
    "AddRoleToDBCluster": Row((_CLUSTER,)),
    "AddRoleToDBInstance": Row((_DB,)),
    "AddTagsToResource": Row((_named("", "ResourceName"),)),
    "CopyDBClusterParameterGroup": Row(
        (_named("cluster-pg", "SourceDBClusterParameterGroupIdentifier"),),
        _named("cluster-pg", "TargetDBClusterParameterGroupIdentifier"),
    ),
    "CopyDBClusterSnapshot": Row(
        (_named("cluster-snapshot", "SourceDBClusterSnapshotIdentifier"),),
        _named("cluster-snapshot", "TargetDBClusterSnapshotIdentifier"),
    ),
    "CopyDBParameterGroup": Row(
        (_named("pg", "SourceDBParameterGroupIdentifier"),), _named("pg", "TargetDBParameterGroupIdentifier")
    ),
    "CopyDBSnapshot": Row(
        (_named("snapshot", "SourceDBSnapshotIdentifier"),), _named("snapshot", "TargetDBSnapshotIdentifier")
    ),
    "CreateDBClusterParameterGroup": Row((), _CLUSTER_PG),
    "CreateDBClusterSnapshot": Row((_CLUSTER,), _CLUSTER_SNAPSHOT),
    "CreateDBInstance": Row((_CLUSTER, _OG, _PG, _SUBGRP), _DB),
    "CreateDBInstanceReadReplica": Row(
        (
            _named("db", "SourceDBInstanceIdentifier"),
            _named("cluster", "SourceDBClusterIdentifier", otherwise="none"),
            *_OF_INSTANCE,
        ),
        _DB,
    ),
    "CreateDBParameterGroup": Row((), _PG),
    "CreateDBSnapshot": Row((_DB,), _SNAPSHOT),
    "DeleteDBCluster": Row((_CLUSTER, _named("cluster-snapshot", "FinalDBSnapshotIdentifier", otherwise="none"))),
    "DeleteDBClusterParameterGroup": Row((_CLUSTER_PG,)),
    "DeleteDBClusterSnapshot": Row((_CLUSTER_SNAPSHOT,)),
    "DeleteDBInstance": Row((_DB,)),
    "DeleteDBParameterGroup": Row((_PG,)),
    "DeleteDBSnapshot": Row((_SNAPSHOT,)),
    "DescribeDBLogFiles": Row((_DB,)),
    "DownloadDBLogFilePortion": Row((_DB,)),
    "FailoverDBCluster": Row((_CLUSTER,)),
    "ModifyDBCluster": Row((_CLUSTER, _CLUSTER_PG, _OG, _named("pg", "DBInstanceParameterGroupName"))),
    "ModifyDBClusterParameterGroup": Row((_CLUSTER_PG,)),
    "ModifyDBInstance": Row((_DB, _OG, _PG, _SUBGRP)),
    "ModifyDBParameterGroup": Row((_PG,)),
    "PromoteReadReplica": Row((_DB,)),
    "RebootDBInstance": Row((_DB,)),
    "RestoreDBClusterFromSnapshot": Row((_named("cluster-snapshot", "SnapshotIdentifier"), *_OF_CLUSTER), _CLUSTER),
    "RestoreDBClusterToPointInTime": Row((_named("cluster", "SourceDBClusterIdentifier"), *_OF_CLUSTER), _CLUSTER),
    "RestoreDBInstanceFromDBSnapshot": Row((_SNAPSHOT, *_OF_INSTANCE), _DB),
    "RestoreDBInstanceToPointInTime": Row(
        (
            _named("db", "SourceDBInstanceIdentifier"),
            _named("auto-backup", "SourceDBInstanceAutomatedBackupsArn"),
            *_OF_INSTANCE,
        ),
        _named("db", "TargetDBInstanceIdentifier"),
    ),
    "StartDBInstanceAutomatedBackupsReplication": Row(
        (_named("db", "SourceDBInstanceArn"),),
        _named("auto-backup", "DBInstanceAutomatedBackupsArn", otherwise="ab-new"),
    ),
    "StopDBInstanceAutomatedBackupsReplication": Row((_named("db", "SourceDBInstanceArn"),)),
}
# Parameters with which a caller passes a role on, and the service that is to get it.
PASSED = {
    "MonitoringRoleArn": "monitoring.rds.amazonaws.com",
    "RoleArn": "rds.amazonaws.com",
}
RENAMED = {"NewDBInstanceIdentifier": _DB, "NewDBClusterIdentifier": _CLUSTER}


@dataclass(frozen=True)
class Result:
    """What was denied, with the reason; and actions of the policy that no call needed (those of UNSEEN left out)."""

    denied: list[str]
    unused: list[str]


@dataclass(frozen=True)
class Need:
    """One permission that a call needs. ``context`` holds what conditions may ask for beside the resource's tags."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    tags: Optional[Mapping[str, str]] = None  # None: not known


def load(playbook: str, account: str = ACCOUNT) -> dict[str, Any]:
    """The policy of a playbook, with the number of an account in it."""
    text = (POLICIES / f"{playbook}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text.replace("ACCOUNT", account))
    return loaded


def check(
    policy: Mapping[str, Any], calls: Iterable[Mapping[str, Any]], earlier: Iterable[Mapping[str, Any]] = ()
) -> Result:
    """Decide for each call, in the order of the log, whether the policy allows it.

    ``earlier`` are calls of others before these: they tell which tags there were, and are not judged.
    """
    tags: dict[str, dict[str, str]] = {}
    for call in earlier:
        _follow(call, tags)
    denied: dict[str, None] = {}
    used: set[str] = set()
    for call in calls:
        for need in _needs(call, tags):
            why = _refusal(policy, need)
            if why:
                denied[f"{need.action} on {need.resource}: {why}"] = None
            used.add(need.action.lower())
        _follow(call, tags)
    unused = [
        action
        for action in actions(policy)
        if action not in UNSEEN and not any(_like(action.lower(), needed) for needed in used)
    ]
    return Result(list(denied), unused)


def actions(policy: Mapping[str, Any]) -> list[str]:
    """Every action that a policy allows, each once."""
    allowed = (statement for statement in policy["Statement"] if statement["Effect"] == "Allow")
    return sorted({action for statement in allowed for action in _list(statement["Action"])})


# -- what a call needs -----------------------------------------------------------------------------------------------


def _needs(call: Mapping[str, Any], tags: Mapping[str, Mapping[str, str]]) -> Iterator[Need]:
    service, action = call.get("service") or "rds", str(call["action"])
    given: Mapping[str, Any] = call.get("parameters") or {}
    region = str(call["region"])
    context = {"aws:RequestedRegion": region}
    for key, text in _request_tags(given).items():
        context[f"aws:RequestTag/{key}"] = text
    if service == "logs":
        group = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{given.get('logGroupName', '*')}"
        yield Need(f"logs:{action}", group, context)
        return
    if service == "secretsmanager":
        yield Need(f"{service}:{action}", str(given.get("SecretId")), context)
        return
    row = ROWS.get(action) if service == "rds" else None
    # Everything else that is called only reads, and the policies allow it for all there is.
    resources = [arn for named in row.all for arn in _arns(named, given, region)] if row else ["*"]
    for resource in resources:
        yield Need(f"{service}:{action}", resource, context, tags.get(resource))
    if row is None:
        return
    if row.made and _request_tags(given):
        for resource in _arns(row.made, given, region):
            yield Need("rds:AddTagsToResource", resource, context, tags.get(resource))
    if any(resource.split(":")[3] != region for resource in resources):
        yield Need("rds:CrossRegionCommunication", "*", context)
    for parameter, passed_to in PASSED.items():
        if given.get(parameter):
            yield Need("iam:PassRole", str(given[parameter]), {**context, "iam:PassedToService": passed_to})


def _arns(named: Named, given: Mapping[str, Any], region: str) -> Iterator[str]:
    names = [str(given[parameter]) for parameter in named.parameters if given.get(parameter)]
    for name in names or ([named.otherwise] if named.otherwise else []):
        # Identifiers are stored in lower case; those of automated backups are not identifiers.
        yield name if name.startswith("arn:") else f"arn:aws:rds:{region}:{ACCOUNT}:{named.kind}:{name.lower()}"


def _request_tags(given: Mapping[str, Any]) -> dict[str, str]:
    """Tags in a request of the query protocol: ``Tags.Tag.1.Key`` and ``Tags.Tag.1.Value``."""
    found = {}
    for name, key in given.items():
        if re.fullmatch(r"Tags\.\w+\.\d+\.Key", name):
            found[str(key)] = str(given.get(f"{name[: -len('Key')]}Value", ""))
    return found


def _follow(call: Mapping[str, Any], tags: dict[str, dict[str, str]]) -> None:
    """Keep in mind which tags a resource has after a call, unless AWS refused it."""
    if int(call.get("status") or 200) >= 400:
        return
    given: Mapping[str, Any] = call.get("parameters") or {}
    region, action = str(call["region"]), str(call["action"])
    row = ROWS.get(action)
    made = row.made if row else None
    if made:
        for resource in _arns(made, given, region):
            tags[resource] = _request_tags(given)
    if action == "AddTagsToResource":
        # What was there before is known only of what was made before.
        tags.setdefault(str(given["ResourceName"]), {}).update(_request_tags(given))
    for parameter, named in RENAMED.items():
        if given.get(parameter):
            (old,) = _arns(named, given, region)
            (new,) = _arns(Named(named.kind, (parameter,)), given, region)
            if old in tags:
                tags[new] = tags.pop(old)


# -- what a policy allows --------------------------------------------------------------------------------------------


def _refusal(policy: Mapping[str, Any], need: Need) -> Optional[str]:
    """Why a policy does not allow something; None when it does."""
    reasons = []
    allowed = False
    for statement in policy["Statement"]:
        if not any(_like(action.lower(), need.action.lower()) for action in _list(statement["Action"])):
            continue
        if not any(_covers(pattern, need.resource) for pattern in _list(statement["Resource"])):
            reasons.append(f"not a resource of {statement['Sid']}")
            continue
        unmet = _unmet(statement.get("Condition") or {}, need)
        if statement["Effect"] == "Deny":
            if not unmet:
                return f"{statement['Sid']} denies it"
        elif unmet:
            reasons.append(f"{statement['Sid']} wants {unmet}")
        else:
            allowed = True
    return None if allowed else "; ".join(reasons) or "no statement names the action"


def _covers(pattern: str, resource: str) -> bool:
    """Whether an ARN is covered; wildcards of IAM do not reach beyond the parts of an ARN."""
    if pattern == "*":
        return True
    wanted, parts = pattern.split(":", 5), resource.split(":", 5)
    return len(wanted) == len(parts) and all(map(_like, wanted, parts))


def _like(pattern: str, text: str) -> bool:
    """IAM's wildcards are ``*`` and ``?`` alone, so brackets stand for themselves."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _unmet(conditions: Mapping[str, Mapping[str, Any]], need: Need) -> str:
    """The first condition that is not met; empty when all are."""
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            found = _value(key, need)
            if not _holds(operator, found, [str(one) for one in _list(wanted)]):
                return f"{operator} {key} {wanted}, and it is {found if found is not None else 'not known'}"
    return ""


def _value(key: str, need: Need) -> Optional[str]:
    if key.startswith("aws:ResourceTag/"):
        return (need.tags or {}).get(key.partition("/")[2])
    if key.startswith("aws:RequestTag/") or key in ("aws:RequestedRegion", "iam:PassedToService"):
        return need.context.get(key)
    raise ValueError(f"condition key {key} cannot be checked here")


def _holds(operator: str, found: Optional[str], wanted: Sequence[str]) -> bool:
    if operator == "StringEquals":
        return found in wanted
    if operator == "StringLike":
        return found is not None and any(_like(pattern, found) for pattern in wanted)
    if operator == "Null":
        return str(found is None).lower() in wanted
    raise ValueError(f"condition operator {operator} cannot be checked here")


def _list(one_or_more: Any) -> list[str]:
    return [one_or_more] if isinstance(one_or_more, str) else list(one_or_more)
