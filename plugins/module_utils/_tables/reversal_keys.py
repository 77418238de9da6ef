# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys of tables whose rows went back to what they were: none may point nowhere.

Each owner reads his own tables only. What the other needs to know goes through tables of ours, as in owners.Parents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Direct, Owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import Owners, Parents
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    has_parent,
    hold_parents,
    match,
    orphans,
    shown_key,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.reversal import Reversal


def without_parent(connection: Any, owners: Owners, key: Mapping[str, Any], one: Reversal) -> dict[int, str]:
    """{number of a row: why} of the rows put back whose foreign key ``key`` points nowhere now; parents are held."""
    put_back = f"{one.pending()} AND u.{one.inverse} <> 'DELETE'"
    ours = f"(SELECT f.* FROM {source_of(key)} f JOIN {one.preview} u ON {one.table.on_key('u', 'f')} WHERE {put_back})"
    parent = owners.of(key["other_relation"], key["other_schema"])
    if isinstance(one.owner, Direct) and isinstance(parent, Direct):
        hold_parents(connection, key, ours)
        condition = orphans(key)
    else:
        parents = Parents(connection, key, one.owner, parent)
        parents.hold(ours)
        condition = parents.orphans()
    query = (
        f"SELECT u.{one.seq} AS seq FROM {one.preview} u JOIN {source_of(key)} f ON {one.table.on_key('u', 'f')} "
        f"WHERE {put_back} AND {condition}"
    )
    shown = display_name(key["other_schema"], key["other_table"])
    reason = f"foreign key {shown_key(key)}: {shown} does not have the row that it pointed to"
    return {row["seq"]: reason for row in one.owner.rows(query)}


class Between:
    """Tables of ours with the columns of a foreign key, which owners tell each other its values by."""

    def __init__(self, connection: Any, key: Mapping[str, Any], owners: Sequence[Owner]) -> None:
        self._connection = connection
        # Without a cage there is nobody to keep anything from.
        self._home = next((owner for owner in owners if not isinstance(owner, Direct)), None)
        self._schema = self._home.schema if self._home is not None else "pg_temp"
        self._key = key
        columns = fingerprint.columns_of(connection, [key["relation"]])[key["relation"]]
        self._types = {item["name"]: item["type"] for item in columns}

    def make(self, what: str, oid: int, writer: Owner, reader: Owner, names: Sequence[str]) -> str:
        """An empty table with the key's columns, called ``names``, from one owner to another; its SQL name."""
        table = f"{self._schema}.dbre_{what}_{self._key['oid']}_{oid}"
        types = (self._types[name] for name in self._key["columns"])
        fields = ", ".join(f"{quote_ident(name)} {kind}" for name, kind in zip(names, types))
        kind = "TEMP" if self._home is None else "UNLOGGED"
        execute(self._connection, f"CREATE {kind} TABLE {table} ({fields})")
        if self._home is not None:
            # Default privileges may have taken even from us what is ours.
            execute(self._connection, f"GRANT ALL ON {table} TO CURRENT_USER")
            for owner, privilege in ((writer, "INSERT"), (reader, "SELECT")):
                owner.lend("SCHEMA", quote_ident(self._schema), ["USAGE"])
                owner.lend("TABLE", table, [privilege])
        return table


def without_row(connection: Any, owners: Owners, key: Mapping[str, Any], one: Reversal) -> dict[int, str]:
    """{number of a row: why} of the rows changed back or deleted that others point to by ``key``, now nowhere."""
    child = owners.of(key["relation"], key["schema"])
    parent = owners.of(key["other_relation"], key["other_schema"])
    between = Between(connection, key, (child, parent, one.owner))
    # What was there, of that what others point to, and of that what is not there any more.
    there = between.make("there", one.table.oid, one.owner, child, key["other_columns"])
    wanted = between.make("wanted", one.table.oid, child, parent, key["columns"])
    missing = between.make("missing", one.table.oid, parent, one.owner, key["columns"])
    gone = f"{one.pending()} AND u.{one.operation} <> 'DELETE'"
    joined = f"FROM {one.preview} u JOIN {one.after} t ON {one.table.on_key('u', 't')}"
    others = ", ".join(f"t.{quote_ident(name)}" for name in key["other_columns"])
    fields = ", ".join(quote_ident(name) for name in key["columns"])
    one.owner.execute(f"INSERT INTO {there} SELECT DISTINCT {others} {joined} WHERE {gone}")
    child.execute(
        f"INSERT INTO {wanted} SELECT DISTINCT {fields} FROM {source_of(key)} f "
        f"WHERE EXISTS (SELECT FROM {there} t WHERE {match(key)})"
    )
    parent.execute(f"INSERT INTO {missing} SELECT {fields} FROM {wanted} f WHERE NOT {has_parent(key)}")
    query = f"SELECT u.{one.seq} AS seq {joined} WHERE {gone} AND EXISTS (SELECT FROM {missing} f WHERE {match(key)})"
    reason = f"foreign key {shown_key(key)}: rows of {display_name(key['schema'], key['table'])} point to it"
    return {row["seq"]: reason for row in one.owner.rows(query)}
