# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import become, give_back
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import require_own_schema
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import existing
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import (
    JOURNAL,
    journal_tables,
    read_journal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import LOCAL_COMMIT
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import staging_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import lock_incident

OTHERS_SCHEMA = "Give it another name (ALTER SCHEMA ... RENAME TO ...), then run again."

LEFTOVERS = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_catalog.pg_get_userbyid(c.relowner) AS owner
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'f')
ORDER BY c.relkind, 1, 2
"""


def remove_staging(production: Server, database: str, incident: str, check_mode: bool) -> dict[str, Any]:
    """Remove what a recovery left in staging; ``{changed, removed, kept, back}``. Kept copies and their schema stay.

    Only what the journal of the incident vouches for is touched. While kept copies stay, so does the journal, which
    says that the recovery is done. ``back`` is what had got into its place already, and stays there. In check mode,
    too, a step that a killed run left behind is waited for: what it does is not known before.
    """
    staging = staging_name(incident)
    admin = production.connect()
    try:
        lock_incident(admin, staging, production.application_name)
        query = "SELECT datname FROM pg_catalog.pg_database WHERE datname = ANY(%s)"
        databases = [row["datname"] for row in rows(admin, query, ([database, staging],))]
        admin.commit()
        return _remove_from(production, databases, incident, check_mode)
    finally:
        admin.close()


def _remove_from(production: Server, databases: list[str], incident: str, check_mode: bool) -> dict[str, Any]:
    staging = staging_name(incident)
    removed: list[str] = []
    kept: list[dict[str, Any]] = []
    exchanged: list[dict[str, Any]] = []
    back: list[str] = []
    for name in databases:
        connection = production.connect(name, LOCAL_COMMIT)
        try:
            refuse_event_triggers(connection, silence_event_triggers(connection))
            journal = read_journal(connection, staging)
            borrowed = journal.get("borrowed", [])
            if name == staging and journal:
                if not check_mode:
                    mark(connection, incident)
                    give_back(connection, borrowed)
                    connection.commit()
                removed.append(f"database {display_name(None, staging)}")
            elif journal:
                # What an undo would have been taken back from is of no use before there was one.
                only_shown = "images" in journal and "undone" not in journal
                kept = [] if only_shown else _still_there(connection, journal.get("kept", []))
                exchanged = _exchanged(connection, journal["plan"][0].get("kept_database"))
                back = back_already(journal)
                ours = {staging, *filter(_is_of(staging), journal["plan"][0]["staging_schemas"].values())}
                for schema in sorted(ours):
                    require_own_schema(connection, schema, JOURNAL, OTHERS_SCHEMA)
                work = partial(_remove_schemas, connection, incident, sorted(ours), kept, borrowed, check_mode)
                removed += patiently(connection, work)
        finally:
            connection.close()
        if name == staging and journal and not check_mode:
            _drop_database(production, staging)
    return {"changed": bool(removed), "removed": removed, "kept": [*kept, *exchanged], "back": back}


def _exchanged(connection: Any, kept: str | None) -> list[dict[str, Any]]:
    """The damaged database, where another one has got its name."""
    if kept is None or not existing(connection, kept):
        return []
    command = f"DROP DATABASE {quote_ident(kept)} WITH (FORCE);"
    return [{"type": "database", "object": display_name(None, kept), "reason": "damaged", "command": command}]


def back_already(journal: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What has got into its place already, by the journal of the database in which it is."""
    ready = "published" in journal
    tables = [item for item in journal.get("table", []) if item["action"] != "beside"]
    found = [display_name(item["schema"], item["name"]) for item in tables if ready or item["action"] != "place"]
    return found + ["the rows of the transaction that was undone" for _undone in journal.get("undone", [])[:1]]


def _is_of(staging: str) -> Callable[[str], bool]:
    """Whether a name is one that a plan gives to staging schemas of its incident."""
    return lambda schema: bool(re.fullmatch(re.escape(staging) + "(_[0-9]+)?", schema))


def _still_there(connection: Any, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    query = "SELECT pg_catalog.to_regclass(%s)"
    return [item for item in kept if value(connection, query, (quote_name(item["schema"], item["name"]),)) is not None]


def _remove_schemas(
    connection: Any,
    incident: str,
    ours: list[str],
    kept: list[dict[str, Any]],
    borrowed: list[dict[str, Any]],
    check_mode: bool,
) -> list[str]:
    """Remove what is not kept, in the caller's transaction; memberships that a killed run had borrowed are given back.

    In check mode nothing is left of it.
    """
    mark(connection, incident)
    keeping = {(item["schema"], item["name"]) for item in kept}
    if kept:
        keeping |= {(ours[0], name) for name in journal_tables(connection, ours[0])}
    removed = []
    leftovers = rows(connection, LEFTOVERS, (ours,))
    borrowed = borrowed + become(connection, [item["owner"] for item in leftovers])
    for item in leftovers:
        if (item["schema"], item["name"]) not in keeping:
            # Partitions go with their parent, hence IF EXISTS.
            kind = "FOREIGN TABLE" if item["kind"] == "f" else "TABLE"
            execute(connection, f"DROP {kind} IF EXISTS {quote_name(item['schema'], item['name'])} CASCADE")
            removed.append(display_name(item["schema"], item["name"]))
    for schema in ours:
        if schema not in {item[0] for item in keeping}:
            execute(connection, f"DROP SCHEMA {quote_ident(schema)}")
            removed.append(display_name(None, schema))
    give_back(connection, borrowed)
    if check_mode:
        connection.rollback()
    return removed


def _drop_database(production: Server, name: str) -> None:
    connection = production.connect(settings=LOCAL_COMMIT)
    try:
        connection.autocommit = True
        execute(connection, f"DROP DATABASE {quote_ident(name)} WITH (FORCE)")
    finally:
        connection.close()
