# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session on a server in a failover: how it is now, and what an earlier run changed of it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

POLL = 0.05
_RECORD = "failover.json"
_STATE = """
SELECT pg_is_in_recovery() AS in_recovery, pg_last_wal_replay_lsn()::text AS replay_lsn,
       current_setting('primary_conninfo') AS conninfo, current_setting('data_directory') AS data,
       current_setting('hba_file') AS hba_file,
       ARRAY(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS receivers,
       (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       (SELECT received_tli FROM pg_stat_wal_receiver) AS received_timeline,
       (SELECT setting::int > 0 FROM pg_settings WHERE name = 'recovery_min_apply_delay') AS delayed,
       CASE WHEN NOT pg_is_in_recovery() THEN
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline
"""
# Of all files that set it; the last one counts.
SET_IN = "SELECT sourcefile, setting FROM pg_file_settings WHERE name = 'primary_conninfo' ORDER BY seqno"
AUTO = "postgresql.auto.conf"


@dataclass(frozen=True)
class Request:
    """What a step is to reach. ``path`` is a directory on the standby's host that remembers what was changed."""

    path: str
    incident: str
    timeline: int = 0
    lsn: str = "0/0"
    timeout: float = 300.0
    primary_host: str = ""
    primary_port: int = 5432
    slots: list[str] = field(default_factory=list)
    synchronous_standby_names: str = ""
    synchronized_standby_slots: str = ""


class Session:
    """A session on one server, for one step."""

    def __init__(self, login: Login, request: Request, check_mode: bool) -> None:
        self.request = request
        self.check_mode = check_mode
        self.host = socket.gethostname()
        self.port = login.get("login_port") or 5432
        self.record_file = os.path.join(request.path, _RECORD)
        self.connection = connect(login, any_database=True)
        self.connection.autocommit = True
        self.progress = Progress(None if check_mode else os.path.join(request.path, "progress.json"))

    def close(self) -> None:
        """End the session."""
        self.connection.close()

    def look(self) -> dict[str, Any]:
        """How the server is now."""
        return rows(self.connection, _STATE)[0]

    def remember(self) -> None:
        """Keep what primary_conninfo is, and whether ALTER SYSTEM had set it, unless an earlier run has."""
        if self.remembered():
            return
        found = rows(self.connection, SET_IN)
        automatic = [row["setting"] for row in found if os.path.basename(row["sourcefile"]) == AUTO]
        known = {
            "incident": self.request.incident,
            "conninfo": self.look()["conninfo"],
            "automatic": automatic[-1] if automatic else None,
        }
        os.makedirs(self.request.path, mode=0o700, exist_ok=True)
        write_atomically(self.record_file, json.dumps(known) + "\n")

    def remembered(self) -> dict[str, Any]:
        """What an earlier run of this incident kept; RecoveryError where another incident has cut the standby off."""
        try:
            with open(self.record_file, encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return {}
        if found["incident"] != self.request.incident:
            raise RecoveryError(
                f"{self.record_file} on {self.host} is of incident {found['incident']}, which cut this standby off "
                "and did not end. Nothing was changed here. Go on with it (dr_incident_id), or, when it was given up, "
                "remove that file."
            )
        return found

    def set_conninfo(self, text: Optional[str]) -> None:
        """Set primary_conninfo by ALTER SYSTEM, or take it back (None), and have the server read that."""
        if text is None:
            execute(self.connection, "ALTER SYSTEM RESET primary_conninfo")
        else:
            execute(self.connection, f"ALTER SYSTEM SET primary_conninfo TO {quote_literal(text)}")
        self.reload()

    def reload(self) -> None:
        """Have the server read its configuration."""
        # It also wakes a startup process that waits for more WAL (startup.c: StartupProcSigHupHandler).
        value(self.connection, "SELECT pg_reload_conf()")

    def where_set(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The file that had set primary_conninfo, where that is not PostgreSQL's own."""
        if known.get("automatic") is not None:
            return {"file": None}
        found = [row["sourcefile"] for row in rows(self.connection, SET_IN)]
        others = [path for path in found if os.path.basename(path) != AUTO]
        return {"file": others[-1] if others else None}

    @staticmethod
    def history(data: str, timeline: int) -> str:
        """Text of a timeline's history file; empty where it is not there."""
        with (
            suppress(FileNotFoundError),
            open(os.path.join(data, "pg_wal", f"{timeline:08X}.history"), encoding="utf-8") as file,
        ):
            return file.read()
        return ""

    def wait(self, done: Callable[[], bool], patience: float, complaint: str) -> None:
        """Wait until something is so; RecoveryError with ``complaint`` where it is not within ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while not done():
            if time.monotonic() > deadline:
                now = self.look()
                raise RecoveryError(
                    f"{self.host}, port {self.port}: {complaint} within {patience:g} s (in recovery "
                    f"{now['in_recovery']}, WAL receiver {now['receiver'] or 'not running'}, replayed up to "
                    f"{now['replay_lsn']}). Its log in /var/log/postgresql says why. Mend that and run this again, "
                    "with the same dr_incident_id."
                )
            time.sleep(POLL)
