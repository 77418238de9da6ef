# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep applications from writing while an incident is repaired, and let them again afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import (
    MARKER,
    READ_ONLY,
    Marker,
    Run,
    iso,
    others,
    read_marker,
    told,
    with_marker,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import become, give_back
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows


def parse_settings(config: Optional[list[str]]) -> dict[str, str]:
    """``pg_db_role_setting.setconfig`` (``["name=value", ...]``, None when there is no row) as a dictionary."""
    return dict(entry.split("=", 1) for entry in config or [])


def read_only_databases(connection: Any, database: Optional[str] = None) -> list[dict[str, Any]]:
    """What keeps applications from writing to ``database``, or to any that carries a marker (None).

    Of each: its name, the value of READ_ONLY now, what was there before and since when, who holds it, and ``fault``
    where its marker cannot be read.
    """
    found = []
    for row in rows(
        connection,
        "SELECT d.datname AS name, s.setconfig AS config, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment"
        " FROM pg_catalog.pg_database d"
        " LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0 ORDER BY 1",
        (),
    ):
        if database not in (None, row["name"]):
            continue
        value, fault, marker = parse_settings(row["config"]).get(READ_ONLY), None, None
        try:
            marker = read_marker(row["comment"])
        except RecoveryError as error:
            fault = error.msg
        if marker or fault or (database and value is not None):
            found.append(
                {
                    "method": "read_only",
                    "database": row["name"],
                    "setting": value,
                    "previous": marker["previous"] if marker else None,
                    "since": iso(marker["since"]) if marker else None,
                    "held_by": told(marker["holders"]) if marker else [],
                    "fault": fault,
                }
            )
    connection.commit()
    return found


class ReadOnly:
    """New transactions of a database are read-only, by ``ALTER DATABASE ... SET default_transaction_read_only``.

    ``incident`` holds it, None for whoever does; ``run`` works on it. ``before`` is what our own record remembers to
    have been there, for a database whose comment somebody replaced: {"previous": ...}.
    """

    def __init__(
        self,
        connection: Any,
        database: str,
        timeout: float,
        incident: Optional[str] = None,
        run: Optional[Run] = None,
        before: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.connection = connection
        self.database = database
        self.timeout = timeout
        self.incident = incident
        self.run: Run = run or {"host": "", "pid": 0, "start": "", "at": time.time()}
        self.before = before

    def present(self, check_mode: bool) -> dict[str, Any]:
        settings, comment = self._look()
        if settings is None:
            raise RecoveryError(
                f"database {self.database!r} does not exist, so it cannot be made read-only. Nothing was changed."
            )
        marker = read_marker(comment)
        old = settings.get(READ_ONLY)
        known = self.before if marker is None and old == "on" else None
        previous = marker["previous"] if marker else known.get("previous") if known else old
        change = marker is None or marker["lifting"] or marker["since"] is None or old != "on"
        held = dict(marker["holders"]) if marker else {}
        holders: dict[str, Run] = {**held, (self.incident or ""): self.run}
        if check_mode:
            ended = self._count_sessions(None if change or marker is None else marker["since"])
            return self._result(True, old, "on", previous, ended, change or ended > 0, holders)
        since = None if change or marker is None else marker["since"]
        if change or not self._holds(held):
            # Before anything is set: what a module that nobody waits for any more sets after it was undone, is found.
            marked: Marker = {"previous": previous, "since": since, "lifting": False, "holders": holders}
            self._write(None, marked, announce=True)
        if since is None:
            since = self._now()
            self._write("on", {"previous": previous, "since": since, "lifting": False, "holders": holders})
        ended = self._end_sessions(since)
        self._verify("on")
        return self._result(True, old, "on", previous, ended, change or ended > 0 or holders.keys() != held.keys())

    def absent(self, check_mode: bool) -> dict[str, Any]:
        settings, comment = self._look()
        if settings is None:
            return self._result(False, None, None, None, 0, False)
        marker, old = read_marker(comment), settings.get(READ_ONLY)
        if marker is None and self.before and old == "on" and self.before.get("previous") != "on":
            previous = self.before.get("previous")
            marker = {
                "previous": previous,
                "since": 0.0,
                "lifting": False,
                "holders": {(self.incident or ""): self.run},
            }
        if marker is None:
            return self._result(False, old, old, old, 0, False)
        previous = marker["previous"]
        held = others(marker, self.incident)
        if held:
            # Another incident needs it still.
            change = held.keys() != marker["holders"].keys()
            if change and not check_mode:
                self._write(None, {**marker, "holders": held}, announce=True)
            return self._result(True, old, old, previous, 0, change, held, marker)
        if check_mode:
            return self._result(False, old, previous, previous, self._count_sessions(None), True, None, marker)
        ended = 0
        if marker["since"] is not None or old != previous:
            # Sessions begun meanwhile are read-only as long as they live. The marker stays until they are ended too.
            since = marker["since"] if marker["lifting"] and marker["since"] else self._now()
            if not marker["lifting"]:
                self._write(previous, {**marker, "since": since, "lifting": True})
            ended = self._end_sessions(since)
            announced = read_marker(self._look()[1])
            if announced is not None and not announced["lifting"]:
                # Another run has begun to contain meanwhile.
                return self._result(True, old, previous, previous, ended, True, announced["holders"])
        self._write(previous, None)
        self._verify(previous)
        return self._result(False, old, previous, previous, ended, True, None, marker)

    def _holds(self, held: Mapping[str, Run]) -> bool:
        """Whether this very run is among the holders."""
        mine = held.get(self.incident or "")
        return mine is not None and {**mine, "at": 0.0} == {**self.run, "at": 0.0}

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

    def _write(self, value: Optional[str], marker: Optional[Marker], announce: bool = False) -> None:
        """Set the database's setting and marker, as its owner, in one transaction; ``announce`` sets the marker only.

        What is set was announced before. When the announcement is gone, somebody has undone it meanwhile.
        """
        found = self._look()[1]
        if marker is not None and not announce and not marker["lifting"]:
            announced = read_marker(found)
            if announced is None or (self.incident or "") not in announced["holders"]:
                raise RecoveryError(
                    f"database {self.database!r} was to be made read-only, and somebody has undone that meanwhile "
                    "(dr-release, or the end of this run). It was left as it is."
                )
        name = quote_ident(self.database).replace("%", "%%")
        comment = with_marker(found, marker)
        owner = rows(
            self.connection,
            "SELECT pg_catalog.pg_get_userbyid(datdba) AS name FROM pg_catalog.pg_database WHERE datname = %s",
            (self.database,),
        )
        try:
            borrowed = become(self.connection, [row["name"] for row in owner])
            if not announce:
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

    def _now(self) -> float:
        return float(self._one("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"))

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
    # A time that others may have written is never later than now: those who come after it would never all be gone.
    _BEGUN = (
        " AND a.backend_start < least(coalesce(pg_catalog.to_timestamp(%s), pg_catalog.clock_timestamp()),"
        " pg_catalog.clock_timestamp())"
    )

    def _count_sessions(self, since: Optional[float]) -> int:
        """Sessions in the database that we end, begun before ``since`` (before now, when None)."""
        query = "SELECT count(*)" + self._SESSIONS + self._MAY_END + self._BEGUN
        return int(self._one(query, (self.database, since)))

    def _count(self, condition: str) -> int:
        return int(self._one("SELECT count(*)" + self._SESSIONS + condition, (self.database,)))

    def _end_sessions(self, since: Optional[float]) -> int:
        """End every session of the database that began before ``since`` and that we may end; the number of them."""
        since = min(since, self._now()) if since else self._now()
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
        self,
        active: bool,
        old: Optional[str],
        new: Optional[str],
        previous: Optional[str],
        ended: int,
        changed: bool,
        held: Optional[Mapping[str, Run]] = None,
        released: Optional[Marker] = None,
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "containment": {
                "method": "read_only",
                "database": self.database,
                "active": active,
                "previous": {READ_ONLY: previous},
                "held_by": [name for name in held or {} if name != (self.incident or "")],
                "released": [name for name in (released or {"holders": {}})["holders"] if name not in (held or {})],
                "stays_read_only": not active and new == "on",
                "sessions_ended": ended,
                "superuser_sessions": self._count(" AND r.rolsuper"),
                "sessions_left": self._count(" AND NOT r.rolsuper AND NOT coalesce(true" + self._MAY_END + ", false)"),
                "escaping_roles": self._escaping_roles(),
            },
            "diff": {"before": {READ_ONLY: old}, "after": {READ_ONLY: new}},
        }


__all__ = ["MARKER", "READ_ONLY", "ReadOnly", "parse_settings", "read_marker", "read_only_databases", "with_marker"]
