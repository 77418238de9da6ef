# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys of tables whose rows went back to what they were: none may point nowhere.

Each owner reads his own tables only. What the other needs to know goes through tables of ours, as in owners.Parents.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def without_row(connection: Any, owners: Owners, key: Mapping[str, Any], one: Reversal) -> dict[int, str]:
    """{number of a row: why} of the rows changed back or deleted that others point to by ``key``, now nowhere."""
    child = owners.of(key["relation"], key["schema"])
    parent = owners.of(key["other_relation"], key["other_schema"])
    home: Owner = next((item for item in (child, parent, one.owner) if not isinstance(item, Direct)), child)
    types = {
        item["name"]: item["type"] for item in fingerprint.columns_of(connection, [key["relation"]])[key["relation"]]
    }
    definitions = ", ".join(f"{quote_ident(name)} {types[name]}" for name in key["columns"])
    if isinstance(home, Direct):
        wanted, missing = (f"pg_temp.dbre_{what}_{key['oid']}_{one.table.oid}" for what in ("wanted", "missing"))
    else:
        wanted, missing = (f"{home.schema}.{what}_{key['oid']}_{one.table.oid}" for what in ("wanted", "missing"))
    for name, writer, reader in ((wanted, child, parent), (missing, parent, one.owner)):
        execute(connection, f"CREATE {'TEMP' if isinstance(home, Direct) else 'UNLOGGED'} TABLE {name} ({definitions})")
        if isinstance(home, Direct):
            continue
        execute(connection, f"GRANT ALL ON {name} TO CURRENT_USER")
        for owner, privilege in ((writer, "INSERT"), (reader, "SELECT")):
            owner.lend("SCHEMA", quote_ident(home.schema), ["USAGE"])
            owner.lend("TABLE", name, [privilege])
    if not isinstance(one.owner, Direct):
        child.lend("SCHEMA", quote_ident(one.owner.schema), ["USAGE"])
    for name in (one.after, one.preview):
        child.lend("TABLE", name, ["SELECT"])
    gone = f"{one.pending()} AND u.{one.operation} <> 'DELETE'"
    fields = ", ".join(quote_ident(name) for name in key["columns"])
    child.execute(
        f"INSERT INTO {wanted} SELECT DISTINCT {fields} FROM {source_of(key)} f WHERE EXISTS (SELECT "
        f"FROM {one.after} t JOIN {one.preview} u ON {one.table.on_key('t', 'u')} WHERE {gone} AND {match(key)})"
    )
    parent.execute(f"INSERT INTO {missing} SELECT {fields} FROM {wanted} f WHERE NOT {has_parent(key)}")
    query = (
        f"SELECT u.{one.seq} AS seq FROM {one.preview} u JOIN {one.after} t ON {one.table.on_key('t', 'u')} "
        f"WHERE {gone} AND EXISTS (SELECT FROM {missing} f WHERE {match(key)})"
    )
    reason = f"foreign key {shown_key(key)}: rows of {display_name(key['schema'], key['table'])} point to it"
    return {row["seq"]: reason for row in one.owner.rows(query)}
