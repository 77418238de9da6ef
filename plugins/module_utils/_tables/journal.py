# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recovery has done, kept in production, in the transactions that did it.

Entries are rows of one table. Where a publication takes in every table, a subscriber would get these rows and stop at
a table that it does not have; there, each entry is a table of its own, filled before it is logged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import require_own_schema
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import is_published

JOURNAL = "dbre_recovery_journal"

TABLES = """
SELECT c.relname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind = 'r' AND (c.relname = %s OR c.relname ~ ('^' || %s || '_[0-9]+$'))
ORDER BY 1
"""


def journal_tables(connection: Any, staging: str) -> list[str]:
    """Names of the tables of one incident's journal; none when there is no journal."""
    return [row["name"] for row in rows(connection, TABLES, (staging, JOURNAL, JOURNAL))]


def make_journal(connection: Any, staging: str) -> None:
    """Make an empty journal, in the caller's transaction."""
    table = quote_name(staging, JOURNAL)
    execute(
        connection,
        f"CREATE TABLE {table} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), kind text NOT NULL, detail jsonb NOT NULL)",
    )
    # Default privileges may have taken even from us what is ours.
    execute(connection, f"GRANT ALL ON {table} TO CURRENT_USER")


def write_journal(connection: Any, staging: str, kind: str, detail: Mapping[str, Any]) -> None:
    """Write one entry, in the caller's transaction."""
    table = quote_name(staging, JOURNAL)
    # Not as \\u escapes, which jsonb does not take everywhere but in databases of UTF-8.
    text = json.dumps(detail, default=str, ensure_ascii=False)
    if not is_published(connection, [staging]):
        execute(connection, f"INSERT INTO {table} (kind, detail) VALUES (%s, %s)", (kind, text))
        return
    number = value(connection, "SELECT pg_catalog.nextval(pg_catalog.pg_get_serial_sequence(%s, 'id'))", (table,))
    entry = quote_name(staging, f"{JOURNAL}_{number}")
    columns = f"{int(number)}::int AS id, %s::text AS kind, %s::jsonb AS detail"
    execute(connection, f"CREATE UNLOGGED TABLE {entry} AS SELECT {columns}", (kind, text))
    execute(connection, f"GRANT ALL ON {entry} TO CURRENT_USER; ALTER TABLE {entry} SET LOGGED")


def read_journal(connection: Any, staging: str) -> dict[str, list[dict[str, Any]]]:
    """The journal of one incident by kind of entry, oldest first; empty when there is none."""
    require_own_schema(connection, staging, JOURNAL, "Recover under another incident id (dr_incident_id).")
    tables = [quote_name(staging, name) for name in journal_tables(connection, staging)]
    if not tables:
        return {}
    journal: dict[str, list[dict[str, Any]]] = {}
    every = " UNION ALL ".join(f"SELECT id, kind, detail FROM {table}" for table in tables)
    for row in rows(connection, f"{every} ORDER BY id"):
        detail = row["detail"] if isinstance(row["detail"], dict) else json.loads(row["detail"])
        journal.setdefault(row["kind"], []).append(detail)
    return journal


def is_of_another(plan: Mapping[str, Any], reached: Optional[Mapping[str, Any]]) -> bool:
    """Whether a plan in the journal is of a recovery from another moment than the one an instance has ``reached``.

    An incident keeps its instance, so that is one of the same name whose record is elsewhere. What its journal says is
    done is not done for this one.
    """
    known, here = plan.get("reached") or {}, reached or {}
    # Where there is no position, the time tells; else it may be told in more than one way.
    exact = "lsn" if known.get("lsn") and here.get("lsn") else "time"
    return any(known.get(key) and here.get(key) and str(known[key]) != str(here[key]) for key in ("timeline", exact))


def require_own(plan: Mapping[str, Any], reached: Optional[Mapping[str, Any]]) -> None:
    """Refuse to go on with the recovery of another incident that has the same name; see is_of_another()."""
    if is_of_another(plan, reached):
        incident = plan["incident"]
        raise RecoveryError(
            f"a recovery of the name {incident} was carried out on {host_name()} already, from another moment: what it "
            f"keeps is in schema {plan.get('staging_schema') or 'recovered_' + str(incident)} of database "
            f"{plan['database']}. Nothing was changed. Give this incident another name (dr_incident_id); to go on with "
            "that one, run it with the dr_report_dir that has its record."
        )


def forget_in_journal(connection: Any, staging: str, kind: str) -> None:
    """Remove the entries of one kind, in the caller's transaction."""
    for name in journal_tables(connection, staging):
        table = quote_name(staging, name)
        if name == JOURNAL:
            if value(connection, f"SELECT EXISTS (SELECT FROM {table} WHERE kind = %s)", (kind,)):
                execute(connection, f"DELETE FROM {table} WHERE kind = %s", (kind,))
        elif value(connection, f"SELECT kind FROM {table}") == kind:
            execute(connection, f"DROP TABLE {table}")
