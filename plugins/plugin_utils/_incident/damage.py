# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one transaction damaged, and how much of it comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, relation_name, rows_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    listed_names,
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import KIND_OF

# Tables, partitioned and foreign tables, views. Indexes and sequences come with what they belong to.
WHOLE = ("r", "p", "f", "v", "m")
SCOPES = ("transaction", "named")
_NAMES_SHOWN = 8
_SENTENCES = {
    "drop_schema": "DROP SCHEMA took {names} from database {database}",
    "drop_table": "DROP TABLE took {names} from database {database}",
    "drop_database": "DROP DATABASE took database {database}",
    "truncate": "TRUNCATE emptied {names} in database {database}",
    "delete": "DELETE took rows of {names} in database {database}",
    "update": "UPDATE changed rows of {names} in database {database}",
    "drop_column": "A column of {names} was dropped in database {database}",
    "ddl": "The definition of {names} was changed in database {database}",
    "pages": "The server cannot read all pages of {names} in database {database}",
    "explicit": "Damage to {names} in database {database} after {moment}",
}


def of_incident(incident: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the transaction damaged and people know by name, in the order it was told."""
    return [item for item in incident.get("relations") or [] if item.get("kind", "r") in WHOLE]


def names(relations: Any) -> str:
    """A list of relations in one line, shortened when it is long."""
    listed = [relation_name(item) for item in relations or []]
    more = len(listed) - _NAMES_SHOWN
    return ", ".join(listed[:_NAMES_SHOWN]) + (f" and {counted(more, 'more', 'more')}" if more > 0 else "")


def kind_of(incident: Mapping[str, Any]) -> str:
    """What the transaction did, also one that was given, where WAL tells; else ``explicit``: only a moment is known."""
    done = {item.get("damage") for item in incident.get("relations") or []}
    known = [kind for damage, kind in KIND_OF.items() if damage in done]
    kind = str(incident.get("kind") or "unknown")
    return known[0] if kind == "explicit" and known else kind


def what_happened(incident: Mapping[str, Any]) -> str:
    """The damage in a sentence; of what was not looked for it says only after which moment it came."""
    kind, relations = kind_of(incident), of_incident(incident)
    did = [item for item in relations if KIND_OF.get(str(item.get("damage"))) == kind]
    found_by = str(incident.get("found_by"))
    sentence = _SENTENCES.get(kind, "Damage to {names} in database {database}")
    if kind == "explicit" and not relations:
        sentence = "Whatever was done in database {database} after {moment}"
    return sentence.format(
        names=names(did or relations) or "what was lost",
        database=incident.get("database", "unknown"),
        # Who gave it is a person, and anything else is a way to search.
        moment=f"the moment that {found_by} found" if found_by.startswith("a ") else "the moment that was given",
    )


def to_recover(
    incident: Mapping[str, Any],
    asked: str | Sequence[str] | None,
    schemas: str | Sequence[str] | None,
    database: str,
    scope: str,
    load: str,
) -> list[str]:
    """Names, as in SQL, of what comes back: what was asked for, and what else the transaction damaged.

    Where neither tables nor schemas were asked for, the database as a whole was, and nothing is added. ``replace``
    exchanges all rows of a table, also those of now: not where the transaction changed some rows and nobody asked.
    """
    named = parse_relation_list(asked)
    within = parse_schema_list(schemas)
    listed = listed_names(asked)
    if scope != "transaction" or not (named or within) or incident.get("database") not in (None, database):
        return listed
    for item in of_incident(incident):
        known = {"schema": item["schema"], "name": item["name"]}
        some_rows = load == "replace" and item.get("damage") in ("delete", "update")
        if known not in named and item["schema"] not in within and item.get("damage") and not some_rows:
            listed.append(relation_name(item))
    return listed


def stays_lost(incident: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the transaction damaged and does not come back, by the words of the run (``parameters`` of its record)."""
    asked, schemas = parameters.get("tables"), parameters.get("schemas")
    if not asked and not schemas:
        return []
    database = str(parameters.get("database") or incident.get("database"))
    scope, load = str(parameters.get("scope") or "transaction"), str(parameters.get("load") or "beside")
    back, within = to_recover(incident, asked, schemas, database, scope, load), parse_schema_list(schemas)
    return [
        item
        for item in of_incident(incident)
        if item.get("damage") and not item.get("asked", True)
        if relation_name(item) not in back and item["schema"] not in within
    ]


def hit_text(item: Mapping[str, Any]) -> str:
    """What was done to one relation: ``drop, 5,000 rows``."""
    done = str(item.get("damage") or "hit").replace("_", " ")
    if item.get("columns"):
        return f"{done}, column {', '.join(map(str, item['columns']))}"
    if item.get("kind") == "v":
        return f"{done}, a view"
    return f"{done}, {rows_text(item.get('rows'), bool(item.get('rows_estimated')), item.get('kind'))}"


def relation_line(item: Mapping[str, Any], comes_back: bool, scope: str) -> str:
    """One damaged relation for the plan: its name, what was done to how many rows of it, and what becomes of it."""
    text = f"{relation_name(item)}: {hit_text(item)}"
    if not comes_back:
        way = "dr_scope=transaction brings it back" if scope == "named" else "dr_load=merge brings it back, too"
        return f"{text}; NOT ASKED FOR, stays lost ({way})"
    return text if item.get("asked", True) else text + "; not asked for, but the same transaction did it"


def candidate_line(item: Mapping[str, Any], chosen: bool) -> str:
    """One transaction that may have done the damage, for the plan."""
    kind = str(item.get("kind") or "unknown").replace("_", " ")
    hit = "; ".join(
        f"{relation_name(one)} {rows_text(one.get('rows'), bool(one.get('rows_estimated')), one.get('kind'))}"
        for one in of_incident(item)[:4]
    )
    hit = hit or rows_text(item.get("rows"))
    text = f"{item.get('commit_time', 'unknown')} {kind}, transaction {item.get('xid')}, LSN {item.get('lsn')}: {hit}"
    if item.get("ours"):
        text += " (done by this collection)"
    return text + (" <- this one" if chosen else "")


def deleted_since(data: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries for ``left_to_do``: who deleted rows after the incident that merging brings back, as WAL tells.

    A merge knows what was there before the incident and is not there now, and not why. ``parameters`` are the words of
    the run.
    """
    incident, candidates = data.get("incident") or {}, data.get("candidates") or []
    places = [number for number, item in enumerate(candidates) if item.get("lsn") == incident.get("lsn")]
    if parameters.get("load") != "merge" or not places:
        return []
    merged = {relation_name(item) for item in of_incident(incident) if item.get("damage") not in (None, "drop")}
    found = []
    for later in candidates[places[0] + 1 :]:
        for item in of_incident(later):
            name = relation_name(item)
            if later.get("ours") or name not in merged or item.get("damage") not in ("delete", "truncate"):
                continue
            rows = "rows" if item.get("rows") is None else counted(item["rows"], "row")
            reason = (
                f"transaction {later.get('xid')} took {rows} from it at "
                f"{later.get('commit_time', 'an unknown time')}, after the incident. Merging brings back what was "
                "there before the incident, these rows too: delete them again if that was meant"
            )
            found.append({"type": "rows deleted later from", "object": name, "reason": reason, "command": None})
    return found
