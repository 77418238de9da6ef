# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let clients wait in PgBouncer while an incident is repaired, and go on afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import (
    Marker,
    Run,
    iso,
    others,
    parse_marker,
    told,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident

_LARGEST = 65536
_SUFFIX = ".pause.json"


class PauseMarkers:
    """Which databases of one PgBouncer are paused by us: PgBouncer does not say who paused, nor since when.

    Files in a folder on the pooler's host that only its user can write to, one a database.
    """

    def __init__(self, folder: str, pooler: str) -> None:
        self.folder = os.path.expanduser(folder)
        self.pooler = pooler

    def path(self, database: str) -> str:
        name = hashlib.sha256(f"{self.pooler}\0{database}".encode()).hexdigest()[:24]
        return os.path.join(self.folder, name + _SUFFIX)

    def databases(self) -> list[str]:
        """Names of the databases that have a marker."""
        if not os.path.isdir(self.folder):
            return []
        found = []
        for name in sorted(os.listdir(self.folder)):
            marked = self._load(os.path.join(self.folder, name)) if name.endswith(_SUFFIX) else None
            database = str((marked or {}).get("database"))
            if marked is not None and self.path(database) == os.path.join(self.folder, name):
                found.append(database)
        return found

    def read(self, database: str) -> Optional[Marker]:
        found = self._load(self.path(database))
        return None if found is None else self._parsed(found)

    def until(self, database: str) -> float:
        """When it is resumed in any case, in seconds since 1970; 0 when there is no marker."""
        return float((self._load(self.path(database)) or {}).get("until") or 0)

    def write(self, database: str, marker: Marker, until: float) -> None:
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._check()
            path = self.path(database)
            write_atomically(path, json.dumps({**marker, "database": database, "until": until}))
        except OSError as error:
            raise RecoveryError(
                f"what PAUSE has to leave behind cannot be kept in {self.folder}: {error}. Nothing was changed. Give "
                "a folder that this user can write to (marker_path)."
            ) from error

    def remove(self, database: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(database))

    def _check(self) -> None:
        seen = os.stat(self.folder)
        if seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise RecoveryError(
                f"{self.folder} belongs to another user or can be written to by others, so what lies there cannot be "
                "believed. Nothing was changed. Give another folder (marker_path), or mend its owner and mode (0700)."
            )

    def _load(self, path: str) -> Optional[dict[str, Any]]:
        if not os.path.isdir(self.folder):
            return None
        self._check()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecoveryError(f"{path} is not what this module writes: {error}. Remove it, and run again.") from error
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            text = stream.read(_LARGEST)
        try:
            found = json.loads(text)
            self._parsed(found)
            return dict(found)
        except (ValueError, KeyError, TypeError) as error:
            raise RecoveryError(
                f"{path} is not what this module writes ({error}). Nothing was changed. Look whether PgBouncer has the "
                "database paused (SHOW DATABASES; RESUME), and remove that file."
            ) from error

    @staticmethod
    def _parsed(found: Mapping[str, Any]) -> Marker:
        marker = parse_marker(json.dumps(found))
        return {**marker, "previous": {"paused": bool(marker["previous"]["paused"])}}


def paused_databases(markers: PauseMarkers, database: Optional[str] = None) -> list[dict[str, Any]]:
    """What we keep clients of ``database``, or of any, waiting in, as far as the markers tell."""
    found = []
    for name in markers.databases():
        marker = markers.read(name)
        if marker is not None and database in (None, name):
            found.append(
                {
                    "method": "pgbouncer_pause",
                    "database": name,
                    "setting": "PAUSE",
                    "previous": "PAUSE" if marker["previous"]["paused"] else None,
                    "since": iso(marker["since"]),
                    "until": iso(markers.until(name)),
                    "held_by": told(marker["holders"]),
                    "fault": None,
                }
            )
    return found


class PgBouncerPause:
    """Clients of a database wait in PgBouncer, by ``PAUSE`` on its admin console.

    ``incident`` holds it, None for whoever does; ``run`` works on it. ``limit``: seconds after which they go on in any
    case, by a process on the pooler's host.
    """

    def __init__(
        self,
        connect: Any,
        database: str,
        timeout: float,
        markers: PauseMarkers,
        incident: Optional[str] = None,
        run: Optional[Run] = None,
        limit: float = 3600,
    ) -> None:
        self.connect = connect
        self.database = database
        self.timeout = timeout
        self.markers = markers
        self.incident = incident
        self.run: Run = run or {"host": "", "pid": 0, "start": "", "at": time.time()}
        self.limit = limit
        self.console: Any = None

    def present(self, check_mode: bool) -> dict[str, Any]:
        paused = self._paused()
        if paused is None:
            raise RecoveryError(
                f"PgBouncer knows no database {self.database!r}; it has {', '.join(self._databases())}. Nothing was "
                "changed. Give the name that clients of PgBouncer use."
            )
        marker = self.markers.read(self.database)
        previous = marker["previous"] if marker else {"paused": paused}
        if check_mode:
            return self._result(True, paused, True, previous)
        until = time.time() + self.limit
        holders: dict[str, Run] = {**(marker["holders"] if marker else {}), (self.incident or ""): self.run}
        marked: Marker = {"previous": previous, "since": time.time(), "lifting": False, "holders": holders}
        self.markers.write(self.database, marked, until)
        self._guard()
        if not paused:
            self._pause()
        now = self.markers.read(self.database)
        if now is None or (self.incident or "") not in now["holders"]:
            # A module that nobody waits for any more, and somebody has undone it meanwhile.
            self._resume()
            raise RecoveryError(
                f"database {self.database!r} was to be paused in PgBouncer, and somebody has undone that meanwhile "
                "(dr-release, or the end of this run). It was resumed."
            )
        return self._result(True, paused, True, previous)

    def absent(self, check_mode: bool) -> dict[str, Any]:
        marker = self.markers.read(self.database)
        if marker is None and self.incident is not None:
            return self._result(False, False, False, {"paused": False})
        paused = bool(self._paused())
        held = others(marker, self.incident) if marker else {}
        previous = marker["previous"] if marker else {"paused": False}
        if marker is not None and held:
            if not check_mode:
                self.markers.write(self.database, {**marker, "holders": held}, self.markers.until(self.database))
            return self._result(True, paused, paused, previous, held, marker)
        if not check_mode:
            if paused and not previous["paused"]:
                self._resume()
            self.markers.remove(self.database)
        return self._result(False, paused, paused and previous["paused"], previous, None, marker)

    def _resume(self) -> None:
        self._command("RESUME")
        if self._paused():
            raise RecoveryError(f"PgBouncer still has database {self.database!r} paused after RESUME. Look at its log.")

    def _open(self) -> Any:
        console = self.connect()
        console.autocommit = True  # the console knows no transactions
        return console

    def _databases(self) -> dict[str, dict[str, Any]]:
        self.console = self.console or self._open()
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
        self.console = self.console or self._open()
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
            self.markers.remove(self.database)
            raise RecoveryError(
                f"PAUSE of database {self.database!r} in PgBouncer did not finish within {self.timeout:g} s, because "
                "clients are still in transactions (or, with session pooling, connected). RESUME was given, so clients "
                "go on as before. Raise the timeout, end those sessions, or choose method=read_only."
            )
        if problems:
            self.markers.remove(self.database)
            refused = f"PgBouncer refused to PAUSE database {self.database!r}: {problems[0]}"
            raise RecoveryError(refused) from problems[0]

    def _guard(self) -> None:
        """Leave a process on this host that resumes the database when its time is over, whatever became of us."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            os.setsid()
            if os.fork() == 0:
                self._watch()
        finally:
            os._exit(0)

    def _watch(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.closerange(3, 1024)
        os.chdir("/")
        until = self.markers.until(self.database)
        self.incident, self.console = None, None
        while self.markers.read(self.database) is not None and self.markers.until(self.database) == until:
            if time.time() >= until:
                with contextlib.suppress(Exception):
                    self.absent(False)
                self.console = None  # a PgBouncer that was restarted is asked anew
            time.sleep(1)

    def _result(
        self,
        active: bool,
        paused: bool,
        now: bool,
        previous: Mapping[str, Any],
        held: Optional[Mapping[str, Run]] = None,
        released: Optional[Marker] = None,
    ) -> dict[str, Any]:
        return {
            "changed": now != paused,
            "containment": {
                "method": "pgbouncer_pause",
                "database": self.database,
                "active": active,
                "held_by": list(held or {}),
                "released": [name for name in (released or {"holders": {}})["holders"] if name not in (held or {})],
                "previous": dict(previous),
                "until": iso(self.markers.until(self.database)) if active else None,
            },
            "diff": {"before": {"paused": paused}, "after": {"paused": now}},
        }
