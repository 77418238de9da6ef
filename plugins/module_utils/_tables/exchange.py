# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give one database the name of another, which goes on under a name of its own: in one transaction.

ALTER DATABASE ... RENAME locks the database, so that new sessions wait, and then waits five seconds for those that are
in it to leave (RenameDatabase() and CountOtherDBBackends() in PostgreSQL's source). They are ended from another session
meanwhile. Whoever waited is told that the database has just been renamed, and gets in at the next attempt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import parse_settings
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import READ_ONLY, read_marker, with_marker
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name

LOCAL_COMMIT = {"synchronous_commit": "local"}
ATTEMPTS = 5
# Seconds. Somebody who holds the database's own lock (COMMENT, ALTER DATABASE) must not make all others wait behind us.
LOCK_TIMEOUT = "1s"
PAUSE = 0.5
# Between two looks at who is in there.
LOOK = 0.05
LONGEST_NAME = 63  # NAMEDATALEN - 1, in bytes
# What says that nothing was done and that it can be tried again: object_in_use, lock_not_available, deadlock.
PASSING = ("55006", "55P03", "40P01")

EXISTING = "SELECT datname AS name FROM pg_catalog.pg_database WHERE datname = ANY(%s)"
ELSEWHERE = """
SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datname <> ALL(%s)
ORDER BY datname = 'postgres' DESC, datistemplate, datname LIMIT 1
"""
END = """
SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()
"""
PREPARED = "SELECT gid, database FROM pg_catalog.pg_prepared_xacts WHERE database = ANY(%s) ORDER BY 1"
OF_DATABASE = """
SELECT s.setconfig AS config, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
WHERE d.datname = %s
"""


def kept_name(database: str, incident: str, what: str = "damaged") -> str:
    """What a database is called that lost its name. Raises RecoveryError when that would be cut."""
    name = f"{database}_{what}_{incident}"
    if len(name.encode()) > LONGEST_NAME:
        raise RecoveryError(
            f"the database {display_name(None, database)} would be kept as {name}, which is longer than the "
            f"{LONGEST_NAME} bytes that a name can have. Nothing was changed. Set dr_incident_id to a shorter one."
        )
    return name


def existing(connection: Any, *names: str) -> set[str]:
    """Those of ``names`` that are databases."""
    found = {row["name"] for row in rows(connection, EXISTING, (list(names),))}
    connection.commit()
    return found


def connect_elsewhere(production: Server, *names: str) -> Any:
    """A session in none of these databases, whose commits wait for no standby."""
    connection = production.connect(settings=LOCAL_COMMIT)
    if connection.info.dbname not in names:
        return connection
    other = value(connection, ELSEWHERE, (list(names),))
    connection.close()
    if other is None:
        raise RecoveryError(
            f"{host_name()} has no other database from which {', '.join(names)} could be renamed. Nothing was changed. "
            "Make one: CREATE DATABASE postgres;"
        )
    return production.connect(other, LOCAL_COMMIT)


def require_exchangeable(connection: Any, database: str, incident: str) -> str:
    """Raise RecoveryError where a database cannot lose its name to another; what it is called then."""
    kept = kept_name(database, incident)
    found = existing(connection, database, kept)
    if database in ("template0", "template1"):
        raise RecoveryError(f"database {database} is the server's own template. Nothing was changed. Name another one.")
    if database not in found:
        raise RecoveryError(
            f"database {display_name(None, database)} does not exist on {host_name()}. Nothing was changed. Look how "
            "it is written (psql -l); one that was dropped comes back with ansible-playbook "
            f"dbre.recovery.dr_table_drop -e dr_database={database}"
        )
    if kept in found:
        raise RecoveryError(
            f"the damaged database would be kept as {display_name(None, kept)}, and {host_name()} has one of that name "
            "already. Nothing was changed. Give another dr_incident_id, or rename or drop that one."
        )
    refuse_prepared(connection, database)
    return kept


def refuse_prepared(connection: Any, *names: str) -> None:
    """Raise RecoveryError where prepared transactions wait in one of these databases: it cannot be renamed then."""
    found = rows(connection, PREPARED, (list(names),))
    connection.commit()
    if found:
        first = found[0]
        gid = first["gid"].replace("'", "''")
        raise RecoveryError(
            f"{len(found)} prepared transaction(s) wait in database {display_name(None, first['database'])} on "
            f"{host_name()} ({', '.join(item['gid'] for item in found[:5])}), and a database that has any cannot be "
            f"renamed. Nothing was changed. Decide each in that database: COMMIT PREPARED '{gid}'; or "
            f"ROLLBACK PREPARED '{gid}'; then run again."
        )


class Exchange:
    """``database`` becomes ``kept_as``, and ``replacement`` becomes ``database``."""

    def __init__(self, production: Server, incident: str, database: str, replacement: str, kept_as: str) -> None:
        self.production = production
        self.incident = incident
        self.database = database
        self.replacement = replacement
        self.kept_as = kept_as

    def is_done(self, connection: Any) -> bool:
        """Whether the names say that it was done. Raises RecoveryError where they fit neither before nor after."""
        found = existing(connection, self.database, self.replacement, self.kept_as)
        if found == {self.database, self.kept_as}:
            return True
        if found == {self.database, self.replacement}:
            return False
        shown = {name: "is there" if name in found else "is not" for name in self._names()}
        raise RecoveryError(
            f"the databases of incident {self.incident} on {host_name()} are not as they must be for this: "
            f"{', '.join(f'{display_name(None, name)} {word}' for name, word in shown.items())}. Of "
            f"{display_name(None, self.replacement)} and {display_name(None, self.kept_as)} one has to be there, and "
            f"{display_name(None, self.database)} too. Nothing was changed. Look at them: "
            "SELECT oid, datname FROM pg_database;"
        )

    def run(self, then: Callable[[Any], None] = lambda connection: None) -> dict[str, Any]:
        """Exchange the names; ``then`` does the rest in the same transaction, and again after one that was given up.

        Returns ``{sessions, seconds}``: how many sessions were ended, and how long nobody got in.
        """
        ours = connect_elsewhere(self.production, *self._names())
        ending = connect_elsewhere(self.production, *self._names())
        try:
            refuse_prepared(ours, *self._names())
            for attempt in range(1, ATTEMPTS + 1):
                began = time.monotonic()
                try:
                    ended = self._rename(ours, ending)
                    then(ours)
                    self._carry_containment(ours)
                    ours.commit()
                    return {"sessions": ended, "seconds": round(time.monotonic() - began, 2)}
                except ours.DatabaseError as error:
                    ours.rollback()
                    if error.pgcode not in PASSING or attempt == ATTEMPTS:
                        raise self._refused(error) from error
                    time.sleep(PAUSE)
            raise AssertionError("not reached")
        finally:
            ours.close()
            ending.close()

    def _names(self) -> tuple[str, str, str]:
        return self.database, self.replacement, self.kept_as

    def _rename(self, ours: Any, ending: Any) -> int:
        """Both names, in the caller's transaction; the number of sessions that were ended."""
        mark(ours, self.incident)
        execute(ours, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        ended = 0
        for old, new in ((self.database, self.kept_as), (self.replacement, self.database)):
            statement = f"ALTER DATABASE {quote_ident(old)} RENAME TO {quote_ident(new)}"
            ended += self._while_ending(ours, ending, statement, old)
        return ended

    @staticmethod
    def _while_ending(ours: Any, ending: Any, statement: str, database: str) -> int:
        errors: list[BaseException] = []

        def rename() -> None:
            try:
                execute(ours, statement)
            except BaseException as error:  # raised in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=rename, daemon=True)
        thread.start()
        ended = 0
        # Not before it has its lock: whoever is sent away could be back at once.
        thread.join(LOOK)
        while thread.is_alive():
            ended = max(ended, int(value(ending, END, (database,))))
            ending.commit()
            thread.join(LOOK)
        if errors:
            raise errors[0]
        return ended

    def _carry_containment(self, connection: Any) -> None:
        """What keeps applications from writing to a database goes with its name, so that it is lifted under it."""
        kept = rows(connection, OF_DATABASE, (self.kept_as,))[0]
        here = rows(connection, OF_DATABASE, (self.database,))[0]
        marker, stale = read_marker(kept["comment"]), read_marker(here["comment"])
        setting = parse_settings(here["config"]).get(READ_ONLY)
        # The backup may be of a time at which it was contained, too.
        own = stale["previous"] if stale else setting
        if marker is not None:
            self._set(connection, self.kept_as, marker["previous"], with_marker(kept["comment"], None))
            current = parse_settings(kept["config"]).get(READ_ONLY)
            # A lifting one has been set back already.
            wanted = own if marker["lifting"] else current
            comment = with_marker(here["comment"], {**marker, "previous": own})
            self._set(connection, self.database, wanted, comment)
        elif stale is not None:
            self._set(connection, self.database, own, with_marker(here["comment"], None))

    @staticmethod
    def _set(connection: Any, database: str, setting: Any, comment: str | None) -> None:
        name = quote_ident(database).replace("%", "%%")
        if setting is None:
            execute(connection, f"ALTER DATABASE {name} RESET {READ_ONLY}", ())
        else:
            execute(connection, f"ALTER DATABASE {name} SET {READ_ONLY} = %s", (setting,))
        execute(connection, f"COMMENT ON DATABASE {name} IS %s", (comment,))

    def _refused(self, error: Any) -> RecoveryError:
        return RecoveryError(
            f"{display_name(None, self.database)} and {display_name(None, self.replacement)} could not exchange "
            f"names on {host_name()}: {str(error).strip()}. Both are as they were, and sessions can begin. See "
            "who stays in them (SELECT pid, datname, usename, backend_type, state FROM pg_stat_activity), end what "
            "holds on, then run again with the same incident id.",
            sqlstate=error.pgcode,
        )
