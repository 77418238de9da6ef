# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failover does to a standby: cut it off, bring it to the proved end of WAL, promote it, let others follow.

Each step looks at the server first, so that a run that was killed goes on.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import timelines_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

with suppress(ImportError):  # connect() says so
    import psycopg2

_POLL = 0.05
# Seconds without any progress of replay after which nothing more is to be expected: PostgreSQL looks into archive and
# pg_wal every five.
STALLED = 20.0
CUT_PATIENCE = 20.0
_RECORD = "failover.json"
_STATE = """
SELECT pg_is_in_recovery() AS in_recovery, pg_last_wal_replay_lsn()::text AS replay_lsn,
       current_setting('primary_conninfo') AS conninfo, current_setting('data_directory') AS data,
       current_setting('hba_file') AS hba_file,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS receivers,
       (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       (SELECT received_tli FROM pg_stat_wal_receiver) AS received_timeline,
       (SELECT setting::int > 0 FROM pg_settings WHERE name = 'recovery_min_apply_delay') AS delayed,
       CASE WHEN NOT pg_is_in_recovery() THEN
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline
"""
# Of all files that set it; the last one counts.
_SET_IN = "SELECT sourcefile, setting FROM pg_file_settings WHERE name = 'primary_conninfo' ORDER BY seqno"
_AUTO = "postgresql.auto.conf"


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


class Step:
    """A session on one server, for one step."""

    def __init__(self, login: Login, request: Request, check_mode: bool) -> None:
        self.request = request
        self.check_mode = check_mode
        self.host = socket.gethostname()
        self.port = login.get("login_port") or 5432
        self._file = os.path.join(request.path, _RECORD)
        self._connection = connect(login, any_database=True)
        self._connection.autocommit = True
        self._progress = Progress(None if check_mode else os.path.join(request.path, "progress.json"))

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def look(self) -> dict[str, Any]:
        """How the server is now."""
        return rows(self._connection, _STATE)[0]

    # Cut off

    def cut(self) -> dict[str, Any]:
        """Have the standby ask nobody for WAL; what it asked is kept in the record."""
        now = self.look()
        if not now["in_recovery"] or (not now["conninfo"] and not now["receivers"]):
            return {"changed": False}
        if not self.check_mode:
            self._remember()
            self._set_conninfo("")
            self._wait(self._is_cut, CUT_PATIENCE, "its WAL receiver does not stop")
        return {"changed": True}

    def _is_cut(self) -> bool:
        now = self.look()
        return not now["conninfo"] and not now["receivers"]

    def _remember(self) -> None:
        """Keep what primary_conninfo is, and whether ALTER SYSTEM had set it, unless an earlier run has."""
        if self._remembered():
            return
        found = rows(self._connection, _SET_IN)
        automatic = [row["setting"] for row in found if os.path.basename(row["sourcefile"]) == _AUTO]
        known = {
            "incident": self.request.incident,
            "conninfo": self.look()["conninfo"],
            "automatic": automatic[-1] if automatic else None,
        }
        os.makedirs(self.request.path, mode=0o700, exist_ok=True)
        write_atomically(self._file, json.dumps(known) + "\n")

    def _remembered(self) -> dict[str, Any]:
        try:
            with open(self._file, encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return {}
        if found["incident"] != self.request.incident:
            raise RecoveryError(
                f"{self._file} on {self.host} is of incident {found['incident']}, which cut this standby off and did "
                "not end. Nothing was changed here. Go on with it (dr_incident_id), or, when it was given up, remove "
                "that file."
            )
        return found

    def _set_conninfo(self, text: Optional[str]) -> None:
        """Set primary_conninfo by ALTER SYSTEM, or take it back (None), and have the server read that."""
        if text is None:
            execute(self._connection, "ALTER SYSTEM RESET primary_conninfo")
        else:
            execute(self._connection, f"ALTER SYSTEM SET primary_conninfo TO {quote_literal(text)}")
        self._reload()

    def _reload(self) -> None:
        # It also wakes a startup process that waits for more WAL (startup.c: StartupProcSigHupHandler).
        value(self._connection, "SELECT pg_reload_conf()")

    # Bring it to the end

    def replayed(self) -> dict[str, Any]:
        """Wait until everything up to the position is replayed."""
        now = self.look()
        wanted = parse_lsn(self.request.lsn)
        if not now["in_recovery"] or parse_lsn(now["replay_lsn"]) >= wanted:
            return {"changed": False, "replay_lsn": now["replay_lsn"]}
        if self.check_mode:
            return {"changed": True, "replay_lsn": now["replay_lsn"]}
        begin = parse_lsn(now["replay_lsn"])
        self._reload()
        reached, moved = begin, time.monotonic()
        deadline = time.monotonic() + self.request.timeout
        while reached < wanted:
            if time.monotonic() > min(deadline, moved + STALLED):
                raise RecoveryError(
                    f"the standby on {self.host} has replayed up to {format_lsn(reached)} and does not come to "
                    f"{self.request.lsn}, {size(wanted - reached)} further. Nothing is promoted. Its log in "
                    "/var/log/postgresql says what is missing; what lacks may be on another host or in the archive. "
                    "Run this again then, or do without: -e dr_salvage_on_timeout=lose"
                )
            time.sleep(_POLL)
            at = parse_lsn(self.look()["replay_lsn"])
            if at > reached:
                reached, moved = at, time.monotonic()
                self._progress.say("replay", reached - begin, wanted - begin, "bytes")
        self._progress.end()
        return {"changed": True, "replay_lsn": format_lsn(reached)}

    # Promote

    def promoted(self) -> dict[str, Any]:
        """Make a primary of it, on a new timeline that begins at or behind the position; with slots for followers."""
        began = time.monotonic()
        now = self.look()
        changed = bool(now["in_recovery"])
        if changed:
            if parse_lsn(now["replay_lsn"]) < parse_lsn(self.request.lsn):
                raise RecoveryError(
                    f"the standby on {self.host} has replayed up to {now['replay_lsn']} only, and everything up to "
                    f"{self.request.lsn} is to be there before it is promoted. Nothing was changed. Run this again."
                )
            if self.check_mode:
                return {"changed": True}
            value(self._connection, "SELECT pg_promote(false)")
            self._wait(lambda: not self._in_recovery(), self.request.timeout, "it stays in recovery")
            now = self.look()
        seconds = time.monotonic() - began
        fork = self._require_descent(now)
        if not self.check_mode:
            if changed:
                execute(self._connection, "CHECKPOINT")
            changed = self._settle_promoted() or changed
            changed = self._have_slots() or changed
        return {
            "changed": changed,
            "timeline": now["timeline"],
            "fork_lsn": format_lsn(fork),
            "promotion_seconds": round(seconds, 3),
            "hba_file": now["hba_file"],
        }

    def _in_recovery(self) -> bool:
        return bool(value(self._connection, "SELECT pg_is_in_recovery()"))

    def _require_descent(self, now: Mapping[str, Any]) -> int:
        """Where the server left the old timeline; RecoveryError where it is another timeline's."""
        timelines = timelines_of(now["timeline"], self.history(now["data"], now["timeline"]))
        ends = dict(timelines.ends)
        fork = ends.get(self.request.timeline)
        if fork is None or fork < parse_lsn(self.request.lsn):
            raise RecoveryError(
                f"{self.host} is a primary on timeline {now['timeline']}, which does not begin where timeline "
                f"{self.request.timeline} ended ({self.request.lsn} or later): its history says {ends}. It was not "
                "changed. Somebody promoted it before it had all WAL; look at both before you go on."
            )
        return fork

    @staticmethod
    def history(data: str, timeline: int) -> str:
        """Text of a timeline's history file; empty where it is not there."""
        with (
            suppress(FileNotFoundError),
            open(os.path.join(data, "pg_wal", f"{timeline:08X}.history"), encoding="utf-8") as file,
        ):
            return file.read()
        return ""

    def _settle_promoted(self) -> bool:
        """Put primary_conninfo back as it was, for the day when this is a standby again."""
        known = self._remembered()
        if not known:
            return False
        self._set_conninfo(known["automatic"])
        os.unlink(self._file)
        return True

    def _have_slots(self) -> bool:
        """Physical slots of these names, which keep WAL from now on."""
        there = {row["slot_name"] for row in rows(self._connection, "SELECT slot_name FROM pg_replication_slots")}
        missing = [name for name in self.request.slots if name not in there]
        for name in missing:
            value(self._connection, "SELECT slot_name FROM pg_create_physical_replication_slot(%s, true)", (name,))
        return bool(missing)

    # Follow

    def following(self) -> dict[str, Any]:
        """Let the standby ask the new primary for WAL, and wait until it streams from there.

        A delayed one asks only when it has replayed what it has (xlogrecovery.c), which may take hours.
        """
        now = self.look()
        if not now["in_recovery"]:
            raise RecoveryError(
                f"{self.host} is to follow the new primary and is a primary itself. It was not changed. Look at once "
                "whether applications write to it."
            )
        known = self._remembered()
        wanted = with_primary(
            known.get("conninfo") or now["conninfo"], self.request.primary_host, self.request.primary_port
        )
        result = {"changed": now["conninfo"] != wanted, **self._where_set(known)}
        if result["changed"] and not self.check_mode:
            self._set_conninfo(wanted)
        if not self.check_mode and not now["delayed"]:
            self._wait(self._streams, self.request.timeout, "it does not stream from the new primary")
        return result

    def _streams(self) -> bool:
        now = self.look()
        return (
            now["receiver"] == "streaming"
            and now["received_timeline"] == self.request.timeline
            and parse_lsn(now["replay_lsn"]) >= parse_lsn(self.request.lsn)
        )

    def _where_set(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The file that had set primary_conninfo, where that is not PostgreSQL's own."""
        if known.get("automatic") is not None:
            return {"file": None}
        found = [row["sourcefile"] for row in rows(self._connection, _SET_IN)]
        others = [path for path in found if os.path.basename(path) != _AUTO]
        return {"file": others[-1] if others else None}

    def settled(self) -> dict[str, Any]:
        """Let the configuration file speak again, once it names the new primary; nothing more is remembered then."""
        now, found = self.look(), rows(self._connection, _SET_IN)
        files = [row["setting"] for row in found if os.path.basename(row["sourcefile"]) != _AUTO]
        automatic = any(os.path.basename(row["sourcefile"]) == _AUTO for row in found)
        by_file = automatic and bool(files) and files[-1] == now["conninfo"]
        known = self._remembered()
        if not self.check_mode:
            if by_file:
                self._set_conninfo(None)
            if known:
                os.unlink(self._file)
        return {"changed": by_file or bool(known)}

    def _wait(self, done: Callable[[], bool], patience: float, complaint: str) -> None:
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
            time.sleep(_POLL)


# host=10.0.0.1 port=5432 ...; a value may be in single quotes, with backslashes before what would end it.
_HOST_OR_PORT = re.compile(r"(?<!\S)(host|hostaddr|port)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")


def with_primary(conninfo: str, host: str, port: int) -> str:
    """A primary_conninfo that leads to another server, and is otherwise the same, letter for letter.

    RecoveryError for a URI, and for one that names no host, since it has nothing that could be replaced.
    """
    if re.match(r"postgres(?:ql)?://", conninfo.strip()):
        raise RecoveryError(
            "primary_conninfo of this standby is a URI, in which no server is replaced. It was not changed. Point it "
            f"to {host}, port {port}, yourself (ALTER SYSTEM SET primary_conninfo, SELECT pg_reload_conf())."
        )
    named = {match.group(1) for match in _HOST_OR_PORT.finditer(conninfo)}
    changed = _HOST_OR_PORT.sub(lambda match: _replaced(match, named, host, port), conninfo)
    missing = ([] if named & {"host", "hostaddr"} else [f"host={host}"]) + ([] if "port" in named else [f"port={port}"])
    return " ".join([*missing, re.sub(r"\s+", " ", changed).strip()]) if missing else changed


def _replaced(match: re.Match[str], named: set[str], host: str, port: int) -> str:
    if match.group(1) == "port":
        return f"port={port}"
    # Of the two, one leads there; what the other one was is not known of the new primary.
    return f"host={host}" if match.group(1) == "host" or "host" not in named else ""


STEPS: Mapping[str, Callable[[Step], dict[str, Any]]] = {
    "cut": Step.cut,
    "replayed": Step.replayed,
    "promoted": Step.promoted,
    "following": Step.following,
    "settled": Step.settled,
}


def take_step(login: Login, state: str, request: Request, check_mode: bool) -> dict[str, Any]:
    """Bring a server into a state; the module's result. RecoveryError where that cannot be."""
    step = Step(login, request, check_mode)
    try:
        return STEPS[state](step)
    except psycopg2.Error as error:
        raise RecoveryError(
            f"the server on {step.host}, port {step.port}, refused: {str(error).strip()}. Run this again with the same "
            "dr_incident_id; it goes on where it was.",
            sqlstate=error.pgcode,
        ) from error
    finally:
        step.close()
