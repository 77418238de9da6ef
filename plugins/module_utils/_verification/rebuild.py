# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build damaged indexes anew from their tables, while production goes on.

An index that is damaged answers queries wrongly until then, and may have let duplicates in: then the table is to be put
right first, and the server refuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import LOCK_NOT_AVAILABLE
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.collations import (
    changed_collations,
    sorted_by,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import FIRST_NORMAL
from ansible_collections.dbre.recovery.plugins.module_utils._verification.entering import enter

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

UNIQUE_VIOLATION = "23505"
# How long transactions of others, which notice nothing, may keep a rebuild from its end; and, of an index of the
# catalogue, how long others wait behind it in vain.
PATIENCE, BRIEFLY = "10min", "500ms"
INDEX = """
SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_relation_filepath(c.oid) AS path,
       i.indisexclusion AS exclusion, i.indrelid::int8 AS table
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid WHERE c.oid = %s AND c.relkind = 'i'
"""
# What a rebuild that was broken off leaves, unless somebody builds it at this moment.
REMAINS = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = %(table)s AND NOT i.indisvalid
  AND pg_catalog.starts_with(c.relname, pg_catalog.left(%(name)s, 50)) AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
"""


class Rebuild:
    """Damaged indexes of the databases of one server."""

    def __init__(self, login: Login, progress: Progress) -> None:
        self._login = login
        self._progress = progress
        self.done: list[dict[str, Any]] = []
        self.refreshed: list[str] = []

    def run(self, indexes: Iterable[Mapping[str, Any]], check_mode: bool) -> bool:
        """Rebuild ``indexes`` of locate; whether something was, or would be. Raises RecoveryError."""
        wanted = list(indexes)
        # With a damaged index of the catalogue a session reads the catalogue without its indexes.
        apart: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
        for one in wanted:
            apart.setdefault((one["database"], one["oid"] >= FIRST_NORMAL), []).append(one)
        for (database, normal), own in sorted(apart.items()):
            session = enter(self._login, database, "rebuilding indexes", plain=not normal)
            try:
                if not check_mode:
                    refuse_event_triggers(session, silence_event_triggers(session))
                session.autocommit = True
                for one in own:
                    self._progress.say("rebuilding indexes", len(self.done), len(wanted), "indexes")
                    self._rebuild(session, one, check_mode)
                if normal and not check_mode:
                    self._refresh(session, database)
            finally:
                session.close()
        return any(one["state"] in ("rebuilt", "to be rebuilt") for one in self.done)

    def _rebuild(self, session: Any, one: Mapping[str, Any], check_mode: bool) -> None:
        found = rows(session, INDEX, (one["oid"],))
        if not found:
            self._note(one, "gone", None)
            return
        index = found[0]
        if index["path"] != one["path"]:
            self._note(one, "rebuilt before", None)
            return
        if check_mode:
            self._note(one, "to be rebuilt", None)
            return
        name = quote_name(index["schema"], index["name"])
        system = one["oid"] < FIRST_NORMAL
        if index["exclusion"]:
            why = (
                "the server does not rebuild the index of an exclusion constraint beside: all writers wait for "
                f"REINDEX INDEX {name};"
            )
            self._note(one, "left", why)
            return
        execute(session, f"SET lock_timeout = '{BRIEFLY if system else PATIENCE}'")
        try:
            execute(session, f"REINDEX INDEX {'' if system else 'CONCURRENTLY '}{name}")
        except psycopg2.Error as error:
            if session.closed:
                raise RecoveryError(f"the session ended while {name} was rebuilt: {server_message(error)}") from error
            self._note(one, "left", self._reason(session, error, index, name))
        else:
            self._note(one, "rebuilt", None)

    def _reason(self, session: Any, error: Any, index: Mapping[str, Any], name: str) -> str:
        """Why an index could not be rebuilt; what that left is removed."""
        for remains in rows(session, REMAINS, {"table": index["table"], "name": index["name"]}):
            with contextlib.suppress(psycopg2.Error):
                execute(session, f"DROP INDEX CONCURRENTLY {quote_name(remains['schema'], remains['name'])}")
        if error.pgcode == UNIQUE_VIOLATION:
            return (
                "the table has duplicates, which the damaged index let in. SET enable_indexscan = off; SET "
                "enable_indexonlyscan = off; SET enable_bitmapscan = off; then SELECT finds them. Remove them, and run "
                "it again"
            )
        if error.pgcode == LOCK_NOT_AVAILABLE:
            return (
                "others held it locked, or had old transactions open. Run it again, or at a quiet moment REINDEX INDEX "
                f"{name};"
            )
        return f"{server_message(error)}. Where its table is damaged, that goes first"

    def _note(self, one: Mapping[str, Any], state: str, why: Optional[str]) -> None:
        shown = display_name(one["schema"], one["name"])
        self.done.append({"database": one["database"], "index": shown, "state": state, "why": why})

    def _refresh(self, session: Any, database: str) -> None:
        """Record the version of collations by which nothing is sorted in another order any more."""
        left = {one["index"] for one in self.done if one["database"] == database and one["state"] == "left"}
        rebuilt = {one["index"] for one in self.done if one["database"] == database} - left
        for collation in changed_collations(session):
            indexes, partitioned = sorted_by(session, collation)
            names = {display_name(item["schema"], item["name"]) for item in indexes}
            if names <= rebuilt and names and not partitioned:
                execute(session, f"SET lock_timeout = '{BRIEFLY}'")
                execute(session, collation.refresh(database))
                self.refreshed.append(f"{collation.what} in {database}")
