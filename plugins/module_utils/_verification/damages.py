# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged, the smallest means against it, and the newest backup that does not have it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import holdings
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.raw_text import readable
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Omission

FIRST_NORMAL = 16384  # FirstNormalObjectId: what has a lower OID is the server's own
KINDS = {"r": "table", "t": "toast", "m": "materialized view", "i": "index", "S": "sequence"}
MEANS = {
    "rebuild": "rebuild the index from its table; nothing is lost",
    "refresh": "REFRESH MATERIALIZED VIEW makes it anew from its tables",
    "rows": "bring back the rows of these blocks with dr-corruption -e dr_strategy=pages",
    "empty": "its rows are in no backup, for it is unlogged: keep what can be read, then TRUNCATE it",
    "restore": "promote a standby without the damage, or restore: no row of it is written by hand",
}


class Place(TypedDict):
    """A relation that a file belongs to; ``table`` is the one that people know, where it is an index or TOAST."""

    oid: int
    schema: str
    name: str
    kind: str
    method: Optional[str]
    owner: int
    table: str
    unlogged: bool


class Damage(TypedDict):
    """One file of a relation.

    ``faults``: ``checksum``, ``header`` and ``unreadable`` of pages, ``structure`` of what is in them, ``missing`` of
    blocks that are not there.
    """

    database: Optional[str]
    place: Optional[Place]
    path: str
    blocks: list[int]
    more: int
    faults: list[str]
    messages: list[str]


def place_of(row: Mapping[str, Any]) -> Place:
    """A row of the catalogue as a place; see locate.NAMES."""
    system = row["oid"] < FIRST_NORMAL or row["schema"] == "pg_catalog"
    kind = KINDS[row["kind"]]
    if system:
        kind = "catalogue index" if kind == "index" else "catalogue"
    return {
        "oid": row["oid"],
        "schema": row["schema"],
        "name": row["name"],
        "kind": kind,
        "method": row["method"],
        "owner": row["toasted"] or row["owner"],
        "table": display_name(row["schema"], row["name"]),
        "unlogged": row["persistence"] == "u",
    }


def means_of(place: Optional[Place], faults: Iterable[str] = ()) -> str:
    """The smallest means against a damage of a relation; a key of MEANS."""
    # Rows of blocks that are not there are in no block that could be named.
    if place is None or ("missing" in faults and place["kind"] in ("table", "toast") and not place["unlogged"]):
        return "restore"
    if place["kind"] in ("index", "catalogue index"):
        return "rebuild"
    if place["kind"] == "materialized view":
        return "refresh"
    if place["kind"] in ("table", "toast"):
        return "empty" if place["unlogged"] else "rows"
    return "restore"


def same_relation(path: str, file: str) -> bool:
    """Whether a file of a backup's manifest is a segment of the relation whose first file has this path."""
    return re.fullmatch(re.escape(path) + r"(\.\d+)?", file) is not None


def newest_clean(
    facts: Mapping[str, Any], paths: Sequence[str], errors_of: Callable[[Mapping[str, Any]], Sequence[str]]
) -> dict[str, Any]:
    """The newest backup in which no page of ``paths`` is damaged, and those that are not clean or not known.

    ``facts`` are those of the stanza; ``errors_of`` names the files of a backup with damaged pages, and raises
    RecoveryError where that cannot be known.
    """
    known = sorted(
        (one for entry in facts["repositories"] for one in holdings(facts, entry["repo"]).backups),
        key=lambda one: str(one["stop_time"]),
        reverse=True,
    )
    damaged: list[str] = []
    unknown: list[str] = []
    for one in known:
        try:
            files = [] if one["error"] is False else errors_of(one)
        except RecoveryError:
            unknown.append(one["label"])
            continue
        if not any(same_relation(path, file) for path in paths for file in files):
            clean = {name: one[name] for name in ("label", "repo", "type", "stop_time", "stop_lsn")}
            return {"clean": clean, "damaged": damaged, "unknown": unknown}
        damaged.append(one["label"])
    return {"clean": None, "damaged": damaged, "unknown": unknown}


def result_of(
    damages: Iterable[Damage],
    collations: Sequence[Mapping[str, Any]],
    omitted: Sequence[Omission],
    facts: Optional[Mapping[str, Any]],
    errors_of: Callable[[Any], Sequence[str]],
) -> dict[str, Any]:
    """All that was located as data and text. ``facts`` are those of the stanza, None without; see newest_clean."""
    found: list[dict[str, Any]] = []
    omissions: list[Omission] = list(omitted)
    for one in damages:
        backups = None
        # Of pages that only amcheck complains of, and of what is not there, no backup knows.
        if facts is not None and "missing" in one["faults"]:
            omissions.append(
                {"what": f"backups of {one['path']}", "why": "none tells whether all of a file was there to be copied"}
            )
        elif facts is not None and set(one["faults"]) - {"structure"}:
            backups = newest_clean(facts, [one["path"]], errors_of)
        elif facts is not None:
            omissions.append(
                {"what": f"backups of {one['path']}", "why": "its pages have sound checksums in them, or none"}
            )
        found.append({**one, "means": means_of(one["place"], one["faults"]), "backups": backups})
    indexes = [
        {
            **{name: one["place"][name] for name in ("oid", "schema", "name")},
            "database": one["database"],
            "path": one["path"],
        }
        for one in found
        if one["means"] == "rebuild"
    ]
    known = {(one["database"], one["oid"]) for one in indexes}
    for collation in collations:
        for item in collation["indexes"]:
            if (collation["database"], item["oid"]) not in known:
                names = {name: item[name] for name in ("oid", "schema", "name", "path")}
                indexes.append({**names, "database": collation["database"]})
    result: dict[str, Any] = readable(
        {
            "sound": not found and not collations,
            "damages": found,
            "collations": collations,
            "indexes": indexes,
            "not_checked": omissions,
            "text": told(found, collations, omissions),
        }
    )
    return result


def told(
    damages: Sequence[Mapping[str, Any]], collations: Sequence[Mapping[str, Any]], omitted: Sequence[Omission]
) -> list[str]:
    """For people, line by line."""
    lines: list[str] = []
    for one in collations:
        lines.append(
            f"{one['what']} in database {one['database']} was sorted by version {one['recorded']}, now "
            f"{one['actual']}: no damage, but {len(one['indexes'])} indexes are to be rebuilt"
        )
        lines += [f"    index {display_name(item['schema'], item['name'])}" for item in one["indexes"]]
        lines += [
            f"    rows of {display_name(item['schema'], item['name'])} may lie in the wrong partition"
            for item in one["partitioned"]
        ]
    for one in damages:
        lines.append(f"{shown(one)}: {'; '.join(one['messages'])}")
        lines.append(f"    {one['path']}; {MEANS[one['means']]}")
        if one["backups"]:
            clean = one["backups"]["clean"]
            said = f"{clean['label']} of {clean['stop_time']}" if clean else "none"
            lines.append(f"    newest backup without it: {said}")
    if not damages:
        lines.append(f"no damage was found{' in what could be looked at; what could not follows' if omitted else ''}")
    lines += [f"not checked: {one['what']}: {one['why']}" for one in omitted]
    return lines


def shown(damage: Mapping[str, Any]) -> str:
    """Name of what is damaged, for people."""
    place = damage["place"]
    blocks = f", block {blocks_text(damage['blocks'], damage['more'])}" if damage["blocks"] else ""
    if place is None:
        return f"file {damage['path']} of database {damage['database'] or 'unknown'}{blocks}"
    name = display_name(place["schema"], place["name"])
    of = f" of {place['table']}" if place["table"] != name else ""
    where = f" in database {damage['database']}" if damage["database"] else ""
    return f"{place['kind']} {name}{of}{where}{blocks}"
