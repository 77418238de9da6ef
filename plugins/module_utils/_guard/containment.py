# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep applications from writing while an incident is repaired, and let them again afterwards."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import become, give_back
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

READ_ONLY = "default_transaction_read_only"
# Stands at the end of the database's comment, where whoever looks at the database sees it. It is written and removed in
# one transaction with READ_ONLY, so that whoever comes after a killed run knows what was there before. Only a superuser
# could keep a setting of our own.
MARKER = "dbre.containment"
MARKED = re.compile(r"(?:\A|\n)\[" + re.escape(MARKER) + r" (.*)\]\Z", re.DOTALL)


def parse_settings(config: Optional[list[str]]) -> dict[str, str]:
    """``pg_db_role_setting.setconfig`` (``["name=value", ...]``, None when there is no row) as a dictionary."""
    return dict(entry.split("=", 1) for entry in config or [])


def read_marker(comment: Optional[str]) -> Optional[dict[str, Any]]:
    """What the marker remembers: ``previous`` (value or None), ``since`` (PostgreSQL's time), ``lifting``."""
    found = MARKED.search(comment or "")
    if found is None:
        return None
    try:
        marker = json.loads(found[1])
        return {"previous": marker["previous"], "since": marker["since"], "lifting": bool(marker["lifting"])}
    except (ValueError, KeyError, TypeError) as error:
        raise RecoveryError(
            f"the comment of the database ends with {found[0].strip()!r}, which this module has not written, so the "
            f"earlier value of {READ_ONLY} is not known. Nothing was changed. Set {READ_ONLY} as it should be and "
            "remove that from the comment: COMMENT ON DATABASE ... IS '...'"
        ) from error


def with_marker(comment: Optional[str], marker: Optional[Mapping[str, Any]]) -> Optional[str]:
    """The comment with ``marker`` at its end, or without one; None when nothing is left."""
    plain = MARKED.sub("", comment or "")
    if marker is None:
        return plain or None
    return f"{plain}{chr(10) if plain else ''}[{MARKER} {json.dumps(marker)}]"


class ReadOnly:
    """New transactions of a database are read-only, by ``ALTER DATABASE ... SET default_transaction_read_only``."""

    def __init__(self, connection: Any, database: str, timeout: float) -> None:
        self.connection = connection
        self.database = database
        self.timeout = timeout

    def present(self, check_mode: bool) -> dict[str, Any]:
        settings, comment = self._look()
        if settings is None:
            raise RecoveryError(
                f"database {self.database!r} does not exist, so it cannot be made read-only. Nothing was changed."
            )
        marker = read_marker(comment)
        old = settings.get(READ_ONLY)
        previous = marker["previous"] if marker else old
        change = marker is None or marker["lifting"] or old != "on"
        if check_mode:
            ended = self._count_sessions(None if change or marker is None else marker["since"])
            return self._result(True, old, "on", previous, ended, change or ended > 0)
        if change:
            since = self._one("SELECT clock_timestamp()::text")
            self._write("on", {"previous": previous, "since": since, "lifting": False})
        else:
            since = marker["since"] if marker else ""
        ended = self._end_sessions(since)
        self._verify("on")
        return self._result(True, old, "on", previous, ended, change or ended > 0)

    def absent(self, check_mode: bool) -> dict[str, Any]:
        settings, comment = self._look()
        marker = read_marker(comment)
        if settings is None or marker is None:
            old = (settings or {}).get(READ_ONLY)
            return self._result(False, old, old, old, 0, False)
        previous = marker["previous"]
        if check_mode:
            return self._result(False, settings.get(READ_ONLY), previous, previous, self._count_sessions(None), True)
        # Sessions begun meanwhile are read-only for as long as they live. The marker stays until they are ended too.
        since = marker["since"] if marker["lifting"] else self._one("SELECT clock_timestamp()::text")
        if not marker["lifting"]:
            self._write(previous, {"previous": previous, "since": since, "lifting": True})
        ended = self._end_sessions(since)
        self._write(previous, None)
        self._verify(previous)
        return self._result(False, settings.get(READ_ONLY), previous, previous, ended, True)

    def _look(self) -> tuple[Optional[dict[str, str]], Optional[str]]:
        """Settings of the database itself, None when there is no such database; and its comment."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT s.setconfig, pg_catalog.shobj_description(d.oid, 'pg_database') FROM pg_catalog.pg_database d"
                " LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0"
                " WHERE d.datname = %s",
                (self.database,),
            )
            row = cursor.fetchone()
        self.connection.commit()
        return (None, None) if row is None else (parse_settings(row[0]), row[1])

    def _write(self, value: Optional[str], marker: Optional[dict[str, Any]]) -> None:
        """Set the database's setting and marker, as its owner, in one transaction."""
        name = quote_ident(self.database).replace("%", "%%")
        comment = with_marker(self._look()[1], marker)
        owner = rows(
            self.connection,
            "SELECT pg_catalog.pg_get_userbyid(datdba) AS name FROM pg_catalog.pg_database WHERE datname = %s",
            (self.database,),
        )
        try:
            borrowed = become(self.connection, [row["name"] for row in owner])
            if value is None:
                execute(self.connection, f"ALTER DATABASE {name} RESET {READ_ONLY}", ())
            else:
                execute(self.connection, f"ALTER DATABASE {name} SET {READ_ONLY} = %s", (value,))
            execute(self.connection, f"COMMENT ON DATABASE {name} IS %s", (comment,))
            give_back(self.connection, borrowed)
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def _verify(self, expected: Optional[str]) -> None:
        found = (self._look()[0] or {}).get(READ_ONLY)
        if found != expected:
            raise RecoveryError(
                f"{READ_ONLY} of database {self.database!r} reads back as {found!r} instead of {expected!r}: somebody "
                "changes it at the same time. Run the same command again."
            )

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            row = cursor.fetchone()
        self.connection.commit()
        return row[0]

    _SESSIONS = (
        " FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
        " WHERE a.datname = %s AND coalesce(a.backend_type, 'client backend') = 'client backend'"
        " AND a.pid <> pg_catalog.pg_backend_pid()"
    )
    # Whom pg_terminate_backend() lets a role end; of others' sessions, only pg_read_all_stats shows when they began.
    _MAY_END = (
        " AND NOT r.rolsuper AND a.backend_start IS NOT NULL AND (pg_catalog.pg_has_role(r.oid, 'USAGE')"
        " OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))"
    )
    _BEGUN = " AND a.backend_start < coalesce(%s::timestamptz, pg_catalog.clock_timestamp())"

    def _count_sessions(self, since: Optional[str]) -> int:
        """Sessions in the database that we end, begun before ``since`` (before now, when None)."""
        query = "SELECT count(*)" + self._SESSIONS + self._MAY_END + self._BEGUN
        return int(self._one(query, (self.database, since)))

    def _count(self, condition: str) -> int:
        return int(self._one("SELECT count(*)" + self._SESSIONS + condition, (self.database,)))

    def _end_sessions(self, since: str) -> int:
        """End every session of the database that began before ``since`` and that we may end; the number of them."""
        query = "SELECT count(pg_catalog.pg_terminate_backend(a.pid))" + self._SESSIONS + self._MAY_END + self._BEGUN
        ended = int(self._one(query, (self.database, since)))
        deadline = time.monotonic() + self.timeout
        while ended and self._count_sessions(since):
            if time.monotonic() > deadline:
                raise RecoveryError(
                    f"{self._count_sessions(since)} sessions in database {self.database!r} did not end within "
                    f"{self.timeout:g} s. {READ_ONLY} is set as asked for all other sessions. Look at them in "
                    "pg_stat_activity and run the same command again."
                )
            time.sleep(0.05)
        return ended

    def _escaping_roles(self) -> list[str]:
        """Roles with a setting of their own that goes before the database's, and lets them write."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT r.rolname FROM pg_catalog.pg_db_role_setting s"
                " JOIN pg_catalog.pg_roles r ON r.oid = s.setrole"
                " LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase"
                " WHERE (s.setdatabase = 0 OR d.datname = %s) AND s.setconfig && %s ORDER BY 1",
                (self.database, [f"{READ_ONLY}={word}" for word in ("off", "false", "no", "0")]),
            )
            roles = [row[0] for row in cursor.fetchall()]
        self.connection.commit()
        return roles

    def _result(
        self, active: bool, old: Optional[str], new: Optional[str], previous: Optional[str], ended: int, changed: bool
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "containment": {
                "method": "read_only",
                "database": self.database,
                "active": active,
                "previous": {READ_ONLY: previous},
                "sessions_ended": ended,
                "superuser_sessions": self._count(" AND r.rolsuper"),
                "sessions_left": self._count(" AND NOT r.rolsuper AND NOT coalesce(true" + self._MAY_END + ", false)"),
                "escaping_roles": self._escaping_roles(),
            },
            "diff": {"before": {READ_ONLY: old}, "after": {READ_ONLY: new}},
        }


class PgBouncerPause:
    """Clients of a database wait in PgBouncer, by ``PAUSE`` on its admin console."""

    def __init__(self, connect: Any, database: str, timeout: float) -> None:
        self.connect = connect
        self.database = database
        self.timeout = timeout
        self.console = self._open()

    def present(self, check_mode: bool) -> dict[str, Any]:
        paused = self._paused()
        if paused is None:
            raise RecoveryError(
                f"PgBouncer knows no database {self.database!r}; it has {', '.join(self._databases())}. Nothing was "
                "changed. Give the name that clients of PgBouncer use."
            )
        if not paused and not check_mode:
            self._pause()
        return self._result(True, paused)

    def absent(self, check_mode: bool) -> dict[str, Any]:
        paused = bool(self._paused())
        if paused and not check_mode:
            self._command("RESUME")
            if self._paused():
                raise RecoveryError(
                    f"PgBouncer still has database {self.database!r} paused after RESUME. Look at its log."
                )
        return self._result(False, paused)

    def _open(self) -> Any:
        console = self.connect()
        console.autocommit = True  # the console knows no transactions
        return console

    def _databases(self) -> dict[str, dict[str, Any]]:
        with self.console.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            columns = [column[0] for column in cursor.description]
            rows = [dict(zip(columns, row)) for row in cursor.fetchall()]
        return {str(row["name"]): row for row in rows if row["name"] != "pgbouncer"}

    def _paused(self) -> Optional[bool]:
        """Whether the database is paused; None when PgBouncer does not know it."""
        entry = self._databases().get(self.database)
        return None if entry is None else bool(int(entry["paused"]))

    def _command(self, command: str) -> None:
        with self.console.cursor() as cursor:
            cursor.execute(f"{command} {quote_ident(self.database)}")

    def _pause(self) -> None:
        """PAUSE waits until transactions (with session pooling: clients) have left. At most the timeout here."""
        problems: list[Exception] = []

        def pause() -> None:
            try:
                self._command("PAUSE")
            except Exception as error:
                problems.append(error)

        waiting = threading.Thread(target=pause, daemon=True)
        waiting.start()
        waiting.join(self.timeout)
        if waiting.is_alive():
            self.console = self._open()
            self._command("RESUME")
            raise RecoveryError(
                f"PAUSE of database {self.database!r} in PgBouncer did not finish within {self.timeout:g} s, because "
                "clients are still in transactions (or, with session pooling, connected). RESUME was given, so clients "
                "go on as before. Raise the timeout, end those sessions, or choose method=read_only."
            )
        if problems:
            raise RecoveryError(f"PgBouncer refused to PAUSE database {self.database!r}: {problems[0]}") from problems[
                0
            ]

    def _result(self, active: bool, paused: bool) -> dict[str, Any]:
        return {
            "changed": active != paused,
            "containment": {
                "method": "pgbouncer_pause",
                "database": self.database,
                "active": active,
                "previous": {"paused": paused},
            },
            "diff": {"before": {"paused": paused}, "after": {"paused": active}},
        }
