# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes between parts: each a dictionary that one part makes and the next accepts whole.

Each has one validator, which its makers and its readers call. It returns what it was given, as the type; templating may
have made strings of numbers, and options of a module nulls of what was not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Optional, TypedDict, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.checks import NOTHING, check_number, check_one_line
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time

# The recovery target


class _TargetKeys(TypedDict):
    type: str
    value: str
    exclusive: bool
    timeline: Any


class RecoveryTarget(_TargetKeys, total=False):
    """The moment to recover to, itself included unless ``exclusive``. ``segment`` is the WAL file that has it.

    ``value`` is empty for the type immediate, ``timeline`` a number, or None where no timeline is replayed.
    """

    xid: Optional[int]
    commit_time: Optional[str]
    reason: Optional[str]
    segment: Optional[str]


TARGET_TYPES = ("lsn", "time", "xid", "name", "immediate")
# Options of a module that takes one, as the documentation fragment dbre.recovery.contracts describes them.
TARGET_OPTIONS: dict[str, dict[str, Any]] = {
    "type": {"type": "str"},
    "value": {"type": "str"},
    "exclusive": {"type": "bool"},
    "timeline": {"type": "int"},
    "xid": {"type": "int"},
    "commit_time": {"type": "str"},
    "reason": {"type": "str"},
    "segment": {"type": "str"},
}


def recovery_target(given: Mapping[str, Any], *, replayed: bool = False) -> RecoveryTarget:
    """A recovery target; RecoveryError names what is wrong with it.

    One that is ``replayed`` to needs a timeline, and has its time written as PostgreSQL writes it itself, so that
    PostgreSQL need not understand every spelling.
    """
    whole = f"{NOTHING} Hand on the whole target."
    kind, value = given.get("type"), given.get("value")
    if kind in (None, ""):
        raise RecoveryError(f"the recovery target has no type: {dict(given)}. {whole}")
    if kind not in TARGET_TYPES:
        raise RecoveryError(f"{kind!r} is no type of a recovery target: {', '.join(TARGET_TYPES)}. {whole}")
    if kind != "immediate" and value in (None, ""):
        raise RecoveryError(f"the recovery target of type {kind} has no value: {dict(given)}. {whole}")
    timeline = given.get("timeline")
    if timeline not in (None, ""):
        check_number("the timeline of the recovery target", timeline, 1, 2**32 - 1)
    elif replayed:
        raise RecoveryError(f"the recovery target has no timeline: {dict(given)}. {whole}")
    if kind == "xid":
        if not re.fullmatch(r"[0-9]{1,20}", str(value)) or not 3 <= int(str(value)) < 2**32:
            raise RecoveryError(
                f"the recovery target is transaction {value!r}, but WAL numbers transactions from 3 to {2**32 - 1}. "
                f"{NOTHING} Give the number as pg_waldump has it, or dr_target_xid, which counts on over 32 bits."
            )
    elif kind == "lsn":
        parse_lsn(str(value))
    elif kind == "time":
        moment = parse_time(str(value), "target")
        value = moment.isoformat(" ") if replayed else value
    elif kind == "name":
        check_one_line("the value of the recovery target", str(value))
    found = {
        "type": kind,
        "value": "" if value is None else str(value),
        "exclusive": str(given.get("exclusive", False)).lower() in ("true", "yes", "1", "on"),
        "timeline": None if timeline in (None, "") else int(str(timeline)),
        **{key: given[key] for key in ("xid", "commit_time", "reason", "segment") if key in given},
    }
    return cast(RecoveryTarget, found)


# The recovered instance


class ReadBack(TypedDict):
    """One thing that was read back from a running server."""

    what: str
    value: Any
    read: str


class Reached(TypedDict):
    """Up to where an instance has everything; null what its source does not know."""

    lsn: Optional[str]
    time: Optional[str]
    timeline: Optional[int]


class _InstanceKeys(TypedDict):
    source: str
    host: Optional[str]
    port: int
    user: str
    database: Optional[str]
    state: str
    reached: Optional[Reached]
    isolation: list[ReadBack]


class RecoveredInstance(_InstanceKeys, total=False):
    """A server that stands just before an incident. It is reached by ``socket`` where ``host`` is null."""

    socket: Optional[str]
    passfile: str
    sslmode: str
    sslrootcert: str
    channel_binding: str
    path: str
    data_directory: str
    version_num: Optional[int]
    system_identifier: str
    identifier: str
    resource_id: str
    expires: str
    """When it should be removed; every later run names it then."""
    own_oids: bool
    """Whether its objects have other OIDs than production's, so that none can be known by its OID."""


INSTANCE_OPTIONS: dict[str, dict[str, Any]] = {
    "source": {"type": "str"},
    "host": {"type": "str"},
    "port": {"type": "int"},
    "socket": {"type": "str"},
    "user": {"type": "str"},
    "database": {"type": "str"},
    "passfile": {"type": "path", "no_log": False},
    "sslmode": {"type": "str"},
    "sslrootcert": {"type": "str"},
    "channel_binding": {"type": "str"},
    "state": {"type": "str"},
    "reached": {
        "type": "dict",
        "options": {"lsn": {"type": "str"}, "time": {"type": "str"}, "timeline": {"type": "int"}},
    },
    "isolation": {
        "type": "list",
        "elements": "dict",
        "options": {"what": {"type": "str"}, "value": {"type": "raw"}, "read": {"type": "str"}},
    },
    "path": {"type": "str"},
    "data_directory": {"type": "str"},
    "version_num": {"type": "int"},
    "system_identifier": {"type": "str"},
    "identifier": {"type": "str"},
    "resource_id": {"type": "str"},
    "expires": {"type": "str"},
    "own_oids": {"type": "bool"},
}


def read_back(proof: Mapping[str, Any]) -> list[ReadBack]:
    """What was read back just now, as the ``isolation`` of a recovered instance has it."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return [{"what": what, "value": value, "read": now} for what, value in proof.items()]


def recovered_instance(given: Mapping[str, Any]) -> RecoveredInstance:
    """A recovered instance; RecoveryError names what is wrong with it, as that nothing proves its isolation."""
    whole = f"{NOTHING} Hand on the whole recovered instance as it was returned."
    if not given.get("port"):
        raise RecoveryError(f"the recovered instance has no port: it is {given.get('port')!r}. {whole}")
    check_number("the port of the recovered instance", given["port"], 1, 65535)
    if not given.get("host") and not given.get("socket"):
        raise RecoveryError(f"the recovered instance has neither host nor socket. {whole}")
    for name in ("host", "socket", "user", "database"):
        check_one_line(f"{name} of the recovered instance", str(given.get(name) or ""))
    if not given.get("source"):
        raise RecoveryError(f"the recovered instance has no source: it is {given.get('source')!r}. {whole}")
    isolation = given.get("isolation")
    if not isolation or not _has_texts(isolation, ("what", "read")):
        raise RecoveryError(
            f"nothing proves that the recovered instance ({given['source']}, {given.get('host') or given['socket']}, "
            f"port {given['port']}) is isolated from production: its isolation is {isolation!r}. {NOTHING} Have its "
            "source prove it (run the role again that made it), and hand on the whole instance as it was returned."
        )
    return cast(RecoveredInstance, dict(given))


def _has_texts(items: Any, keys: Sequence[str]) -> bool:
    """Whether all of a list are dictionaries with a text under each of the keys."""
    return isinstance(items, Sequence) and all(
        isinstance(item, Mapping) and all(isinstance(item.get(key), str) and item[key] for key in keys)
        for item in items
    )


# The fingerprint


class Fingerprint(TypedDict, total=False):
    """One relation: its rows, where they were counted, and its definition."""

    kind: str
    rows: int
    checksum: str
    max: Optional[str]
    owner: str
    columns: list[dict[str, Any]]
    constraints: list[str]
    referenced_by: list[str]
    indexes: list[str]
    triggers: list[str]
    policies: list[str]
    grants: list[str]
    sequences: dict[str, dict[str, Any]]


def fingerprints(given: Mapping[str, Any]) -> dict[str, Fingerprint]:
    """Fingerprints by relation; RecoveryError names the relation that has none that can be compared."""
    whole = f"{NOTHING} Hand on the whole fingerprint as postgresql_fingerprint_info returned it."
    for name, item in given.items():
        if not isinstance(item, Mapping) or not item:
            raise RecoveryError(f"the fingerprint of {name} is {item!r}. {whole}")
        if "rows" in item:
            check_number(f"rows in the fingerprint of {name}", item["rows"], 0, 2**63 - 1)
        if "rows" in item and not isinstance(item.get("checksum"), (str, int)):
            raise RecoveryError(f"the fingerprint of {name} has the checksum {item.get('checksum')!r}. {whole}")
    return cast("dict[str, Fingerprint]", dict(given))


# The restore plan


class Shown(TypedDict):
    """Lines for people, and what stands in front of the first."""

    label: str
    lines: list[str]


class RestorePlan(TypedDict, total=False):
    """What a source will do. Beside these keys it has the source's own, which only that reads.

    ``path`` and ``port`` are where a side instance will be, on a host that whoever shows it knows.
    """

    shown: list[Shown]
    path: str
    port: Optional[int]


# In front of the lines under this label the place of the side instance is shown.
SIDE_INSTANCE = "Side instance"


def restore_plan(given: Mapping[str, Any]) -> dict[str, Any]:
    """A restore plan (:class:`RestorePlan` with the source's own keys); RecoveryError when it shows nothing."""
    shown = given.get("shown")
    if (
        not shown
        or not _has_texts(shown, ("label",))
        or not all(isinstance(item.get("lines"), list) and item["lines"] for item in shown)
    ):
        raise RecoveryError(
            f"the restore plan says nothing to show: shown is {shown!r}, but must be a list of label and lines. "
            f"{NOTHING} Hand on the whole plan as the source returned it."
        )
    return dict(given)


# The load plan


class _LoadPlanKeys(TypedDict):
    incident: str
    database: str
    staging_schemas: dict[str, str]
    staging_database: Optional[str]
    relations: list[dict[str, Any]]
    objects: list[dict[str, Any]]


class LoadPlan(_LoadPlanKeys, total=False):
    """What is lost, and what is done with each of it; the module postgresql_lost_objects_info documents it."""

    load: str
    xids: list[int]
    reached: Optional[Reached]
    staging_schema: str
    kept_database: Optional[str]
    holding: Optional[dict[str, Any]]
    sequences: list[dict[str, Any]]
    left_to_do: list[dict[str, Any]]
    left_out: list[list[str]]
    large_objects: dict[str, Any]
    bytes: int
    replication: dict[str, Any]
    waits: list[dict[str, Any]]
    roles: list[str]
    owners: list[list[str]]
    missing_roles: list[dict[str, Any]]
    missing_tablespaces: list[str]
    missing_memberships: list[dict[str, Any]]
    event_triggers: list[dict[str, Any]]
    room: list[dict[str, Any]]


LOAD_PLAN_OPTIONS: dict[str, dict[str, Any]] = {
    **{key: {"type": "str"} for key in ("incident", "database", "load", "staging_schema")},
    **{key: {"type": "str"} for key in ("staging_database", "kept_database")},
    **{key: {"type": "dict"} for key in ("reached", "staging_schemas", "replication", "large_objects", "holding")},
    **{
        key: {"type": "list", "elements": "dict"}
        for key in ("relations", "objects", "sequences", "left_to_do", "waits", "event_triggers", "room")
    },
    **{key: {"type": "list", "elements": "dict"} for key in ("missing_roles", "missing_memberships")},
    **{key: {"type": "list", "elements": "str"} for key in ("roles", "missing_tablespaces")},
    **{key: {"type": "list", "elements": "list"} for key in ("owners", "left_out")},
    "xids": {"type": "list", "elements": "int"},
    "bytes": {"type": "int"},
}


def load_plan(given: Mapping[str, Any]) -> LoadPlan:
    """A load plan; RecoveryError names what it lacks."""
    for key in ("incident", "database", "relations", "staging_schemas", "objects"):
        if given.get(key) is None:
            raise RecoveryError(
                f"the load plan has no {key}: it is {given.get(key)!r}. {NOTHING} Hand on the whole plan as "
                "postgresql_lost_objects_info returned it."
            )
    found = {key: value for key, value in given.items() if value is not None}
    return cast(LoadPlan, {"staging_database": None, **found})


# The incident record


class _RecordKeys(TypedDict):
    id: str
    scenario: str
    parameters: dict[str, Any]
    started: str
    ended: Optional[str]
    outcome: str
    message: Optional[str]
    runs: list[dict[str, Any]]
    events: list[dict[str, Any]]


class IncidentRecord(_RecordKeys, total=False):
    """``record.json`` of an incident: its runs and phases, and the phases that say how far it is."""

    milestones: list[str]


OUTCOMES = ("running", "done", "failed")


def incident_record(given: Any, where: object) -> IncidentRecord:
    """An incident record; RecoveryError names what is wrong with the one in the file ``where``."""
    kept = "Nothing was touched. Put the file back as it was, or give another id (dr_incident_id)."
    if not isinstance(given, Mapping):
        raise RecoveryError(f"{where} is no record of an incident: it holds {type(given).__name__}. {kept}")
    for key in _RecordKeys.__annotations__:
        if key not in given:
            raise RecoveryError(f"{where} is no record of an incident: it has no {key}. {kept}")
    for key, wanted in (("parameters", Mapping), ("runs", list), ("events", list)):
        if not isinstance(given[key], wanted):
            raise RecoveryError(f"the incident record {where} has {key} {given[key]!r}. {kept}")
    if given["outcome"] not in OUTCOMES:
        raise RecoveryError(
            f"the incident record {where} has outcome {given['outcome']!r}, not {' or '.join(OUTCOMES)}. {kept}"
        )
    return cast(IncidentRecord, dict(given))
