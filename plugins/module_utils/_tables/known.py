# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what differs because it was left to do, and is reported as such, from what differs for no known reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Properties of a fingerprint's definition that a thing left to do shows in, by its type. Rows and checksums are none.
SHOWN_IN = {
    "acl": ("grants",),
    "check constraint": ("constraints",),
    "comment": ("comment", "comments"),
    "constraint": ("constraints", "indexes", "replica_identity", "columns"),
    "default value": ("columns",),
    "fk constraint": ("constraints", "referenced_by"),
    "foreign key": ("constraints", "referenced_by"),
    "generated column": ("columns", "indexes", "constraints"),
    "identity column": ("columns",),
    "index": ("indexes", "replica_identity"),
    "index attach": ("indexes",),
    "inheritance": ("parents", "columns", "constraints"),
    "owner": ("owner", "grants"),
    "policy": ("policies",),
    "primary key": ("constraints", "indexes", "replica_identity", "columns"),
    "publication relation": ("publications",),
    "publication table": ("publications",),
    "row security": ("row_security",),
    "rule": ("rules",),
    "statistics": ("statistics",),
    "statistics object": ("statistics",),
    "storage option": ("options",),
    "table attach": ("parents", "partition_bound", "columns", "constraints", "indexes", "triggers"),
    "table column": ("columns", "indexes", "constraints", "statistics"),
    "table constraint": ("constraints", "referenced_by", "indexes", "replica_identity", "columns"),
    "tablespace": ("tablespace",),
    "trigger": ("triggers",),
}


def relation_of(entry: Mapping[str, Any], tables: Mapping[str, str]) -> str | None:
    """The relation that an entry of ``left_to_do`` is about, where it tells; ``tables`` are those of objects."""
    name = str(entry["object"])
    if name in tables:
        return tables[name]
    if " in publication " in name:
        return name.partition(" in publication ")[0]
    return name.rpartition(" on ")[2] if " on " in name else None


def without_known(
    difference: Iterable[Mapping[str, Any]], left_to_do: Sequence[Mapping[str, Any]], tables: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The items of a difference that nothing left to do explains.

    ``tables`` are the relations that objects (as pg_identify_object() calls them) belong to, both as shown to people.
    """
    found = list(difference)
    relations = {item["relation"] for item in found}
    # What tells of a property itself is called by it, and names the relation.
    known = {
        (entry["object"] if entry["object"] in relations else relation_of(entry, tables), shown)
        for entry in left_to_do
        for shown in SHOWN_IN.get(entry["type"], (entry["type"].replace(" ", "_"),))
    }
    return [
        dict(item)
        for item in found
        if (item["relation"], item["property"]) not in known
        and not (item["property"] == "referenced_by" and any(shown == "referenced_by" for unused, shown in known))
        and (None, item["property"]) not in known
    ]
