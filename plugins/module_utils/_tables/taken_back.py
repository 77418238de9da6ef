# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged tables get their places back, from those that had been recovered (see damaged_tables.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import execute_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import runs_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.damaged_tables import DISPLACED, PLACED
from ansible_collections.dbre.recovery.plugins.module_utils._tables.displaced import (
    IDENTITIES,
    Holding,
    drop_command,
    find_holding,
    find_roots,
    kept_schemas,
    key_statement,
    locks_of,
    make_schemas,
    move,
    names_of_relations,
    refuse_holding,
    take_off,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import read_journal, write_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import LOCAL_COMMIT
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import staging_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import lock_incident

TAKEN_BACK = "taken_back"


def take_back(production: Server, database: str, incident: str, check_mode: bool) -> dict[str, Any]:
    """Give the damaged tables their places back; those that were recovered are kept, with all written since."""
    admin = production.connect()
    try:
        lock_incident(admin, staging_name(incident), production.application_name)
        connection = production.connect(database, LOCAL_COMMIT)
        try:
            refuse_event_triggers(connection, silence_event_triggers(connection))
            return _Exchange(connection, incident).run(check_mode)
        finally:
            connection.close()
    finally:
        admin.close()


class _Exchange:
    def __init__(self, connection: Any, incident: str) -> None:
        self._connection = connection
        self._incident = incident
        self._journal = read_journal(connection, staging_name(incident))
        connection.commit()
        if DISPLACED not in self._journal:
            raise RecoveryError(
                f"incident {incident} has put no tables in the place of others in this database on {host_name()}, so "
                "there is nothing to take back. Nothing was changed. Check the incident's id and the database."
            )
        self._kept: dict[str, str] = self._journal[DISPLACED][0]["kept"]
        self._damaged: Holding = self._journal[DISPLACED][0]["holding"]
        self._left: list[dict[str, Any]] = []

    def run(self, check_mode: bool) -> dict[str, Any]:
        """What the module returns."""
        done = self._journal.get(TAKEN_BACK, [])
        if done:
            schemas = done[0]["schemas"]
        elif check_mode:
            return {"changed": True, "kept": [], "left_to_do": []}
        else:
            locks = Locks(self._connection)
            schemas = patiently(self._connection, lambda: self._exchange(locks), locks=locks)
        if not check_mode:
            self._validate()
        kept = {
            "type": "tables",
            "object": ", ".join(schemas),
            "reason": "the tables that had been recovered, with all that was written to them since",
            "command": drop_command(schemas),
        }
        return {"changed": not done, "kept": [kept], "left_to_do": self._left}

    def _find(self) -> Holding:
        placed = self._journal[PLACED][0]
        roots = find_roots(self._connection, placed["roots"], [])
        objects = {(item["classid"], item["objid"]) for item in placed["objects"]}
        holding = find_holding(self._connection, roots, objects)
        refuse_holding(holding)
        return holding

    def _exchange(self, locks: Locks) -> list[str]:
        connection = self._connection
        self._left = []
        mark(connection, self._incident)
        self._require_kept()
        ends = ("relation", "other_relation")
        holding = self._find()
        keys = [*holding["keys"], *self._damaged["keys"]]
        oids = {*holding["roots"], *self._damaged["roots"], *(key[end] for key in keys for end in ends)}
        together: Holding = {**holding, "roots": [*holding["roots"], *self._damaged["roots"]], "keys": keys}
        locks.take(locks_of(together, names_of_relations(connection, oids)))
        holding = self._find()
        replaced = kept_schemas("replaced", self._incident, holding)
        take_off(connection, holding)
        make_schemas(connection, replaced.values())
        move(connection, holding["moves"], replaced)
        move(connection, self._damaged["moves"], {schema: schema for schema in self._kept})
        self._publish()
        for key in self._damaged["keys"]:
            self._add_key(key)
        for name in self._kept.values():
            # Whatever somebody has put there since stays.
            with savepoint(connection, lambda error: None):
                execute(connection, f"DROP SCHEMA {quote_ident(name)}")
        reason = "it was made after the recovery, and still reads what is kept; make it anew"
        self._left += [left(item["type"], item["identity"], reason) for item in holding["stays"]]
        schemas = list(replaced.values())
        write_journal(connection, staging_name(self._incident), TAKEN_BACK, {"schemas": schemas})
        return schemas

    def _require_kept(self) -> None:
        """Raise RecoveryError where what was kept is not where it was put."""
        moves = self._damaged["moves"]
        asked = {"classes": [item["classid"] for item in moves], "objects": [item["objid"] for item in moves]}
        there = {row["oid"]: row["schema"] for row in rows(self._connection, IDENTITIES, asked)}
        gone = [item["identity"] for item in moves if there.get(item["objid"]) != quoted(self._kept[item["schema"]])]
        if gone:
            raise RecoveryError(
                f"{', '.join(gone)} of incident {self._incident} on {host_name()} cannot get the place back: it is not "
                f"in {', '.join(self._kept.values())}, where it was kept. Nothing was changed."
            )

    def _publish(self) -> None:
        names = names_of_relations(self._connection, [item["relation"] for item in self._damaged["publications"]])
        for item in self._damaged["publications"]:
            statement = f"ALTER PUBLICATION {quote_ident(item['publication'])} ADD TABLE ONLY {names[item['relation']]}"

            def failed(error: Any, item: Mapping[str, Any] = item, statement: str = statement) -> None:
                self._left.append(left("publication", item["publication"], server_message(error), f"{statement};"))

            with savepoint(self._connection, failed):
                execute(self._connection, statement)

    def _add_key(self, key: Mapping[str, Any]) -> None:
        table, other = self._ends(key)
        statement = key_statement(key, table, other)

        def failed(error: Any) -> None:
            self._left.append(left("foreign key", shown(key), server_message(error), f"{statement};", lost=True))

        with savepoint(self._connection, failed):
            execute(self._connection, statement)

    def _ends(self, key: Mapping[str, Any]) -> tuple[str, str]:
        names = names_of_relations(self._connection, [key["relation"], key["other_relation"]])
        return names[key["relation"]], names[key["other_relation"]]

    def _validate(self) -> None:
        """Check the rows that are there, each key in a transaction of its own, while others write."""
        for key in self._waiting():
            table, other = self._ends(key)
            statement = f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote_ident(key['name'])}"

            def work(table: str = table, other: str = other, statement: str = statement) -> None:
                mark(self._connection, self._incident)
                if runs_as_owner(self._connection, [table, other]):
                    execute_as_owner(self._connection, table, statement, other)
                else:
                    execute(self._connection, statement)

            try:
                patiently(self._connection, work)
            except self._connection.IntegrityError as error:
                self._connection.rollback()
                reason = f"not all rows that are there fit ({server_message(error)}); new ones are checked"
                self._left.append(left("foreign key", shown(key), reason, f"{statement};"))

    def _waiting(self) -> Sequence[Mapping[str, Any]]:
        query = "SELECT conname AS name, conrelid::int8 AS relation FROM pg_catalog.pg_constraint "
        query += "WHERE contype = 'f' AND NOT convalidated AND conrelid = ANY(%s::oid[])"
        found = rows(self._connection, query, ([key["relation"] for key in self._damaged["keys"]],))
        self._connection.commit()
        waiting = {(row["relation"], row["name"]) for row in found}
        return [key for key in self._damaged["keys"] if key["validated"] and (key["relation"], key["name"]) in waiting]


def shown(key: Mapping[str, Any]) -> str:
    """What people call a key."""
    return f"{key['name']} on {display_name(key['schema'], key['table'])}"


def quoted(schema: str) -> str:
    """A schema as pg_identify_object() writes it."""
    return display_name(None, schema)
