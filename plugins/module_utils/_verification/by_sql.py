# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored server is sound, as far as SQL tells: for servers whose host nobody can log in to.

Who asks need not be a superuser. Whatever is done is undone, but for the extension amcheck: the server is thrown away.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message, try_to_become
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import READ_AS, rows_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import silence_event_triggers
from ansible_collections.dbre.recovery.plugins.module_utils._verification.amcheck import (
    CORRUPT,
    QUERY_CANCELED,
    Amcheck,
    Given,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.collations import (
    changed_collations,
    sorted_by,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import (
    LAST_NUMBER,
    SEQUENCES_OF_COLUMNS,
    SHOWN,
    sequence_behind,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import in_one_line
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import fingerprints_of

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

NOT_PERMITTED = "42501"
SCHEMA = "dbre_amcheck"
DATABASES = "SELECT datname AS name, datallowconn AS open FROM pg_catalog.pg_database ORDER BY 1"
USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
RELATIONS = f"""
SELECT c.oid::int8 AS oid, n.nspname || '.' || c.relname AS name, c.relkind::text AS kind,
       c.relispopulated AS populated, c.relpersistence::text AS persistence
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND {USERS} ORDER BY 2
"""
TABLE = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner, c.relrowsecurity AS row_security,
       c.relforcerowsecurity AS force_row_security
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
LARGE_OBJECTS = "SELECT count(*)::int8 FROM pg_catalog.pg_largeobject_metadata"
AVAILABLE = "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck')"
INSTALLED = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'amcheck')"

Session = Callable[[str], Any]


class BySql:
    """The checks of one restored server, database by database, through sessions that are in no transaction yet."""

    def __init__(self, session: Session, closed: Mapping[str, str], progress: Optional[Progress] = None) -> None:
        """``closed`` are databases that nobody is let into, with the reason."""
        self._session = session
        self._closed = closed
        self._progress = progress or Progress(None)
        self.findings: list[Finding] = []
        self.omitted: list[Omission] = []
        self.facts: dict[str, Any] = {"databases": {}}
        # What fingerprints_of says, by database.
        self.fingerprints: dict[str, dict[str, Any]] = {}

    def find(self, code: str, subject: str, message: str) -> None:
        self.findings.append(finding(code, 0, subject, message))

    def omit(self, what: str, why: str) -> None:
        self.omitted.append({"what": what, "why": why})

    def run(self) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
        """All of them."""
        with contextlib.closing(self._session("postgres")) as connection:
            databases = rows(connection, DATABASES)
        for one in databases:
            name = str(one["name"])
            if name in self._closed or not one["open"]:
                self.omit(f"database {name}", self._closed.get(name, "it lets nobody in"))
                continue
            try:
                connection = self._session(name)
            except RecoveryError as error:
                self.find("LOGIN_FAILED", name, error.msg)
                continue
            try:
                with contextlib.closing(connection):
                    self._progress.say(f"reading database {name}", 0, 0, "")
                    self._database(connection, name)
                with contextlib.closing(self._session(name)) as connection:
                    self._amcheck(connection, name)
            except (RecoveryError, psycopg2.Error) as error:  # what was found, and other databases, count all the same
                self.find("CHECK_FAILED", name, f"database {name}: {in_one_line(error)}")
        self.omit("pages on disk and their checksums", "nobody can log in to AWS's host; what is read is checked there")
        return self.findings, self.omitted, self.facts

    def _database(self, connection: Any, name: str) -> None:
        for other in changed_collations(connection):
            versions = f"was made with version {other.recorded}; the restored server has {other.actual}"
            self.find("COLLATION_MISMATCH", f"{name}: {other.what}", f"{other.what} in {name} {versions}")
        relations = rows(connection, RELATIONS)
        for one in relations:
            if one["kind"] == "m" and not one["populated"]:
                text = f"{one['name']} in {name} holds no rows until a REFRESH"
                self.find("MATVIEW_UNPOPULATED", f"{name}: {one['name']}", text)
            elif one["persistence"] == "u":
                self.omit(f"{one['name']} in {name}", "it is unlogged, and empty after every restore")
        objects = int(value(connection, LARGE_OBJECTS))
        if objects:
            self.omit(f"{objects} large objects in {name}", "only who owns one, or a superuser, can read it")
        try_to_become(
            connection, [row["owner"] for row in rows(connection, READ_AS, {"oids": [one["oid"] for one in relations]})]
        )
        taken = fingerprints_of(connection, name, lambda what, error: self._refused(name, what, error))
        for left in taken.omitted:
            self.find("TABLE_NOT_READ", f"{name}: {left['what']}", f"{left['what']}: {left['why']}")
        self._sequences(connection, name)
        connection.rollback()
        self.fingerprints[name] = taken.relations
        read = [one for one in taken.relations.values() if "rows" in one]
        self.facts["databases"][name] = {"relations": len(read), "rows": sum(int(one["rows"]) for one in read)}

    def _refused(self, database: str, what: str, error: Any) -> None:
        """Note why the server did not give a table's rows, or a sequence."""
        if error.pgcode == QUERY_CANCELED:
            raise RecoveryError(
                f"{what} in {database} was not read in the time that the test may take", code="TIMED_OUT"
            )
        code = "TABLE_NOT_READ" if error.pgcode == NOT_PERMITTED else "TABLE_UNREADABLE"
        # What code of users raises may hold values of rows.
        known = error.pgcode and (error.pgcode.startswith("XX") or error.pgcode == NOT_PERMITTED)
        why = error.diag.message_primary if known else f"the server refused it with SQLSTATE {error.pgcode}"
        self.find(code, f"{database}: {what}", f"{what} in {database}: {why}")

    def _sequences(self, connection: Any, name: str) -> None:
        """A sequence may be ahead of its column, never behind it."""
        with connection.cursor() as cursor:
            cursor.execute(SEQUENCES_OF_COLUMNS)
            owned = cursor.fetchall()
        for sequence_schema, sequence, schema, table, column in owned:
            said = f"{sequence_schema}.{sequence}"
            execute(connection, "SAVEPOINT dbre_look")
            try:
                last = value(connection, f"SELECT {LAST_NUMBER} FROM {quote_name(sequence_schema, sequence)}")
                item = rows(connection, TABLE, (schema, table))[0]
                query = (
                    f"SELECT pg_catalog.max({quote_ident(column)})::int8 AS highest FROM {quote_name(schema, table)}"
                )
                highest = rows_as_owner(connection, item, query, "Its sequence was not compared.")[0]["highest"]
            except RecoveryError as error:
                self.find("TABLE_NOT_READ", f"{name}: {said}", f"sequence {said} in {name}: {error.msg}")
            except psycopg2.Error as error:
                execute(connection, "ROLLBACK TO SAVEPOINT dbre_look")
                self._refused(name, said, error)
            else:
                if text := sequence_behind(f"{said} in {name}", f"{schema}.{table}.{column}", last, highest):
                    self.find("SEQUENCE_BEHIND", f"{name}: {said}", text)
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_look")

    # amcheck

    def _amcheck(self, connection: Any, name: str) -> None:
        other_order = {
            index["oid"] for one in changed_collations(connection) for index in sorted_by(connection, one)[0]
        }
        connection.rollback()
        if why := _install(connection):
            self.omit(f"structure of tables and indexes in {name} (amcheck)", why)
            return
        checks = Amcheck(connection, self._session)
        left: Counter[str] = Counter()
        corrupt: list[tuple[str, str]] = []
        relations = checks.relations()
        for number, one in enumerate(relations):
            self._progress.say(f"checking database {name}", number, len(relations), "relations")
            if not checks.looks_into(one):
                left[f"amcheck does not look into {one['method']}"] += 1
            elif one["kind"] == "i" and not one["usable"]:
                left["an index that is not valid: its building was broken off"] += 1
            elif one["oid"] in other_order:
                left["text sorts otherwise there, so that a sound index would look corrupt"] += 1
            else:
                found, why = _faults(checks, one)
                left[why] += bool(why)
                corrupt += [(f"{one['schema']}.{one['name']}", text) for text in found[:1]]
        self.facts["databases"].setdefault(name, {})["checked"] = len(relations) - sum(left.values())
        for subject, text in corrupt[:SHOWN]:
            self.find("AMCHECK_CORRUPT", f"{name}: {subject}", f"{subject} in {name}: {text}")
        if len(corrupt) > SHOWN:
            self.find("AMCHECK_CORRUPT", f"{name}: more", f"{len(corrupt) - SHOWN} more relations")
        for why, number in sorted(left.items()):
            if number:
                self.omit(f"structure of {number} relations in {name} (amcheck)", why)


def _install(connection: Any) -> Optional[str]:
    """Have the extension amcheck; why it cannot be had, else None."""
    firing = [one["name"] for one in silence_event_triggers(connection) if one["fires"]]
    try:
        if value(connection, INSTALLED):
            return None
        if not value(connection, AVAILABLE):
            return "this server does not have the extension"
        if firing:
            return f"the extension is missing, and event triggers fire: {', '.join(firing)}"
        execute(connection, f"CREATE SCHEMA {SCHEMA}")
        execute(connection, f"CREATE EXTENSION amcheck SCHEMA {SCHEMA}")
        connection.commit()
    except psycopg2.Error as error:
        return f"the server refused the extension: {server_message(error)}"
    finally:
        connection.rollback()
    return None


def _faults(checks: Amcheck, relation: Mapping[str, Any]) -> tuple[Sequence[str], str]:
    """What is wrong with a relation, and why it could not be told."""
    look = checks.index(relation) if relation["kind"] == "i" else checks.table(relation["oid"])
    found: list[str] = []
    try:
        found += [fault.message for fault in look]
    except Given as given:
        return found, str(given)
    except psycopg2.Error as error:
        if error.pgcode not in CORRUPT:
            raise
        found.append(server_message(error))
    return found, ""
