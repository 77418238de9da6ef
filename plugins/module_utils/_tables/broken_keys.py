# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that break a foreign key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import rows_that
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Direct, Owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import Owners, each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import orphans, source_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left


def tables_of_key(key: Mapping[str, Any]) -> list[str]:
    """Both tables of a key (SQL), its own first."""
    return [quote_name(key["schema"], key["table"]), quote_name(key["other_schema"], key["other_table"])]


def shown_key(key: Mapping[str, Any]) -> str:
    """What people call a key."""
    return f"{key['name']} on {display_name(key['schema'], key['table'])}"


def violation(connection: Any, key: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The entry of ``left_to_do``: how many rows, and some of them; ``command`` is run when they are mended."""
    columns = [f"f.{quote_ident(name)}" for name in key["columns"]]
    without = f"FROM {source_of(key)} f WHERE {orphans(key)}"
    fields = ", ".join(f"{fingerprint.shown_text(column)} AS v{n}" for n, column in enumerate(columns))
    count, sample = None, []
    # Row security may hide rows of one of the tables from us, or their owner may not compare them. Neither a lock to
    # lift it nor the run is worth the number.
    errors: list[Any] = []
    with savepoint(connection, errors.append), each_as_its_owner(connection, []) as owners:
        whom = _reader(connection, owners, key)
        count = whom.value(f"SELECT count(*) {without}")
        sample = [list(row.values()) for row in whom.rows(f"SELECT {fields} {without} LIMIT 5")]
    shown = display_name(key["schema"], key["table"])
    entry = left(
        "foreign key",
        shown_key(key),
        f"{rows_that(count)} of {shown} {'points' if count == 1 else 'point'} to rows that "
        f"{display_name(key['other_schema'], key['other_table'])} does not have (any more); new rows are checked, "
        "these are not. Mend them, then run the command",
        command,
    )
    return {**entry, "rows": count, "columns": key["columns"], "sample": sample}


def _reader(connection: Any, owners: Owners, key: Mapping[str, Any]) -> Owner:
    """Whose rights and code may meet in a query on both tables of a foreign key: those of its own table's owner."""
    for schema, name in ((key["schema"], key["table"]), (key["other_schema"], key["other_table"])):
        oid = value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (quote_name(schema, name),))
        found = owners.of(oid, schema)
        if not isinstance(found, Direct):
            break
    return found
