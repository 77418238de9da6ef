# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at one server of a cluster, running or dead, and change nothing."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    format_lsn,
    parse_history,
    parse_lsn,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._failover.logical import slots_on_disk
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import find_managers
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni import view_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState, Slot, Upstream
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import (
    WalEnd,
    has_record,
    read_end,
    segments_in,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import value
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import (
    control_value,
    parse_controldata,
    recovery_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid

with suppress(ImportError):  # connect() says so
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

_ASKED = """
SELECT json_build_object(
  'version_num', current_setting('server_version_num')::int,
  'database', current_database(),
  'in_recovery', recovering,
  'data_directory', current_setting('data_directory'),
  'timelines', ARRAY[(SELECT timeline_id FROM pg_control_checkpoint()),
                     (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                     (SELECT received_tli FROM pg_stat_wal_receiver),
                     CASE WHEN NOT recovering THEN
                       ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END],
  'current_lsn', CASE WHEN NOT recovering THEN pg_current_wal_flush_lsn()::text END,
  'receive_lsn', pg_last_wal_receive_lsn()::text,
  'replay_lsn', pg_last_wal_replay_lsn()::text,
  'replay_time', to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
  'receiver', (SELECT status FROM pg_stat_wal_receiver),
  'primary_lsn', (SELECT latest_end_lsn::text FROM pg_stat_wal_receiver),
  'primary_time', (SELECT to_char(latest_end_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
                     FROM pg_stat_wal_receiver),
  'paused', CASE WHEN recovering THEN pg_is_wal_replay_paused() END,
  'slots', (SELECT coalesce(json_agg(to_jsonb(s)), '[]') FROM pg_replication_slots s),
  'prepared', (SELECT count(*) FROM pg_prepared_xacts),
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY(%s)))::text
  FROM (SELECT pg_is_in_recovery() AS recovering) AS now
"""
_SETTINGS = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "recovery_target_lsn",
    "recovery_target_time",
    "recovery_target_xid",
    "restore_command",
    "synchronized_standby_slots",
    "synchronous_commit",
    "synchronous_standby_names",
]


@dataclass(frozen=True)
class Place:
    """Where a server is on this host, and which service runs it; ``config`` is empty beside the data directory."""

    data: str
    major: int
    service: str
    config: str


def parse_clusters(text: str, port: int) -> Optional[tuple[int, str, str]]:
    """(major version, name, data directory) of the cluster on ``port``, out of ``pg_lsclusters --no-header``."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[2] == str(port):
            return int(fields[0]), fields[1], fields[5]
    return None


def find_place(port: int, data: Optional[str], service: Optional[str]) -> Place:
    """The server on a port of this host, dead or not; RecoveryError where neither Debian's tools nor ``data`` tell."""
    clusters = "/usr/bin/pg_lsclusters"
    found = parse_clusters(run([clusters, "--no-header"])[1], port) if os.access(clusters, os.X_OK) else None
    if found is not None and data in (None, "", found[2]):
        major, name, directory = found
        config = f"/etc/postgresql/{major}/{name}/postgresql.conf"
        return Place(directory, major, service or f"postgresql@{major}-{name}", config)
    if not data:
        raise RecoveryError(
            f"no cluster of PostgreSQL with port {port} is known on {socket.gethostname()}. Nothing was changed. Say "
            "where its data directory is (postgresql_data_dir), or which port it has (postgresql_port)."
        )
    try:
        with open(os.path.join(data, "PG_VERSION"), encoding="utf-8") as file:
            major = int(file.read())
    except OSError as error:
        raise RecoveryError(
            f"{data} on {socket.gethostname()} is no data directory that can be read: {error.strerror}. Nothing was "
            "changed. Name the right one (postgresql_data_dir), and run this as the user that owns it."
        ) from error
    return Place(data, major, service or f"postgresql-{major}", "")


def read_control(bin_dir: str, data: str) -> dict[str, str]:
    """pg_controldata of a data directory; RecoveryError where it cannot be read."""
    rc, stdout, stderr = run([os.path.join(bin_dir, "pg_controldata"), data])
    if rc != 0:
        raise RecoveryError(
            f"pg_controldata cannot read {data} on {socket.gethostname()}: {(stderr or stdout).strip()}. Nothing was "
            "changed."
        )
    return parse_controldata(stdout)


def upstream_of(settings: Mapping[str, str]) -> Upstream:
    """Whom a standby with these settings asks, and how it calls itself. Of the password nothing is told."""
    text = settings.get("primary_conninfo") or ""
    try:
        parts = parse_dsn(text) if text else {}
    except ProgrammingError:
        parts = {}
    name = parts.get("application_name") or settings.get("cluster_name") or "walreceiver"
    host = parts.get("hostaddr") or parts.get("host") or ""
    return {
        "host": host,
        "port": parts.get("port") or ("5432" if parts else ""),
        "name": name,
        "user": parts.get("user") or "",
        "slot": settings.get("primary_slot_name") or "",
    }


def slots_of(rows: Sequence[Mapping[str, Any]]) -> list[Slot]:
    """Replication slots out of rows of pg_replication_slots, whose columns depend on the version.

    A logical slot of a standby is of use after a promotion when it is a failover slot that was synchronized, is no
    temporary one any more, and was not invalidated (PostgreSQL 17).
    """
    found: list[Slot] = []
    for row in rows:
        lost = row.get("wal_status") == "lost" or bool(row.get("invalidation_reason")) or bool(row.get("conflicting"))
        synced = bool(row.get("synced")) and not row.get("temporary")
        found.append(
            {
                "name": str(row["slot_name"]),
                "kind": str(row["slot_type"]),
                "active": bool(row["active"]),
                "lost": lost,
                "usable": not lost and (row["slot_type"] == "physical" or synced),
                "temporary": bool(row.get("temporary")),
            }
        )
    return found


def lacking(control: Mapping[str, str], settings: Mapping[str, str]) -> list[str]:
    """Settings that are lower than the primary had them, as ``name value < value``."""
    return [
        f"{name} {settings[name]} < {least}"
        for name, least in recovery_settings(control).items()
        if name in settings and int(settings[name]) < least
    ]


def look(
    login: Login,
    *,
    data: Optional[str] = None,
    service: Optional[str] = None,
    bin_dir: Optional[str] = None,
    read_from: Optional[str] = None,
) -> HostState:
    """The state of the server on the port of ``login``, on this host.

    Of WAL as much is read as tells where it ends: from ``read_from`` on where that is given and there, else from where
    the server stands. Raises RecoveryError where the host has no such server, or its files cannot be read.
    """
    place = find_place(login.get("login_port") or 5432, data, service)
    bin_dir = find_bin_dir(place.major, bin_dir)
    running = server_pid(place.data) is not None
    asked, why = _ask(login) if running else ({}, "")
    control = read_control(bin_dir, place.data)
    state = _of_disk(place, bin_dir, control)
    state.update({"running": running, "answers": bool(asked), "why": why, "managers": find_managers()})
    if any(manager["name"] == "Patroni" for manager in state["managers"]):
        state["patroni"] = view_of(place.data)
    if asked:
        _add_answers(state, asked, control)
    else:
        state.update(_settings_of_dead(bin_dir, place))
    if state["in_recovery"] is not False:
        state["timeline"] = _timeline_of_wal(state)
    _add_history(state)
    _add_end(state, asked, control, read_from)
    return state


def _ask(login: Login) -> tuple[dict[str, Any], str]:
    """What a running server says of itself, or why it does not."""
    try:
        connection = connect(login, any_database=True)
    except RecoveryError as error:
        return {}, error.msg
    try:
        found: dict[str, Any] = json.loads(value(connection, _ASKED, (_SETTINGS,)))
        return found, ""
    finally:
        connection.close()


def _of_disk(place: Place, bin_dir: str, control: Mapping[str, str]) -> HostState:
    status = os.path.join(place.data, "pg_wal", "archive_status")
    ready = [name for name in os.listdir(status) if name.endswith(".ready")] if os.path.isdir(status) else []
    enabled = run(["systemctl", "is-enabled", place.service])[1] if os.path.isdir("/run/systemd/system") else ""
    timelines = [
        control_value(control, "Latest checkpoint's TimeLineID"),
        control.get("Min recovery ending loc's timeline"),
    ]
    return {
        "reachable": True,
        "in_recovery": None,
        "stands_by": os.path.exists(os.path.join(place.data, "standby.signal")),
        "service": place.service,
        "masked": enabled.strip().startswith("masked"),
        "version_num": None,
        "major": place.major,
        "system_identifier": control_value(control, "Database system identifier"),
        "data_directory": place.data,
        "bin_dir": bin_dir,
        "cluster_state": control_value(control, "Database cluster state"),
        "segment_size": int(control_value(control, "Bytes per WAL segment")),
        "timeline": max(int(text) for text in timelines if text),
        "ready": len(ready),
        "receive_lsn": None,
        "replay_lsn": None,
        "replay_time": None,
        "primary_lsn": None,
        "primary_time": None,
        "receiver": None,
        "paused": None,
        "held": False,
        "delay_seconds": 0.0,
        "slots": slots_on_disk(place.data),
        "prepared": None,
        "lacks": [],
    }


def _add_answers(state: HostState, asked: Mapping[str, Any], control: Mapping[str, str]) -> None:
    settings = asked["settings"]
    state.update(
        {
            "database": asked["database"],
            "in_recovery": asked["in_recovery"],
            "version_num": asked["version_num"],
            "timeline": max(each for each in asked["timelines"] if each),
            "receive_lsn": asked["receive_lsn"],
            "replay_lsn": asked["replay_lsn"],
            "replay_time": asked["replay_time"],
            "primary_lsn": asked["primary_lsn"],
            "primary_time": asked["primary_time"],
            "receiver": asked["receiver"],
            "upstream": upstream_of(settings),
            "paused": asked["paused"],
            "held": any(settings.get(f"recovery_target_{kind}") for kind in ("lsn", "time", "xid")),
            "delay_seconds": int(settings["recovery_min_apply_delay"]) / 1000,
            "slots": slots_of(asked["slots"]),
            "prepared": asked["prepared"],
            "lacks": lacking(control, settings) if asked["in_recovery"] else [],
            "archive_mode": settings["archive_mode"],
            "archives": bool(settings.get("archive_command") or settings.get("archive_library")),
            "restores": bool(settings.get("restore_command")),
            "synchronous_standby_names": settings["synchronous_standby_names"],
            "synchronous_commit": settings["synchronous_commit"],
            "synchronized_standby_slots": settings.get("synchronized_standby_slots"),
        }
    )


def _settings_of_dead(bin_dir: str, place: Place) -> HostState:
    """Settings that a dead server had, as its own program reads them out of its files; null where it does not."""
    found: dict[str, Optional[str]] = {}
    where = [f"--config-file={place.config}"] if place.config else ["-D", place.data]
    for name in ("synchronous_standby_names", "synchronous_commit", "synchronized_standby_slots"):
        rc, stdout, _stderr = run([os.path.join(bin_dir, "postgres"), *where, "-C", name])
        found[name] = stdout.rstrip("\n") if rc == 0 else None
    return cast(HostState, found)


def _timeline_of_wal(state: HostState) -> int:
    """The timeline that the WAL in pg_wal leads to, beyond the one that the control file tells of.

    A standby writes the timeline of what it replays into its control file at a restartpoint only, and a new primary at
    its first checkpoint, minutes later; and a receiver that has ended says nothing. A later timeline is taken where its
    WAL goes on from the fork and that of the timeline before does not.
    """
    wal, timeline = os.path.join(state["data_directory"], "pg_wal"), state["timeline"]
    later = [int(name[:8], 16) for name in os.listdir(wal) if re.fullmatch(r"[0-9A-F]{8}\.history", name)]
    for child in sorted(number for number in later if number > timeline):
        with open(os.path.join(wal, f"{child:08X}.history"), encoding="utf-8") as file:
            parent, fork = (parse_history(file.read(), child).ends or ((0, 0),))[-1]
        goes_on = parent == timeline and has_record(state["bin_dir"], wal, child, fork)
        if goes_on and not has_record(state["bin_dir"], wal, parent, fork):
            timeline = child
    return timeline


def _add_history(state: HostState) -> None:
    path = os.path.join(state["data_directory"], "pg_wal", f"{state['timeline']:08X}.history")
    try:
        with open(path, encoding="utf-8") as file:
            state["history"] = file.read()
    except FileNotFoundError:
        state["history"] = ""


def _add_end(state: HostState, asked: Mapping[str, Any], control: Mapping[str, str], wanted: Optional[str]) -> None:
    """Where valid WAL ends, read from the best known place, and how far back it goes from there without a gap.

    What a standby has received may end in the middle of a record, of which the dead primary never sent the rest.
    """
    wal = os.path.join(state["data_directory"], "pg_wal")
    told = [asked.get("current_lsn"), asked.get("replay_lsn")]
    known = max((parse_lsn(text) for text in told if text), default=None)
    least = known if known is not None else parse_lsn(control_value(control, "Latest checkpoint's REDO location"))
    end = known
    for start in [*([parse_lsn(wanted)] if wanted else []), least]:
        found = _read(state, wal, start)
        # What ends before the server stood has a gap; it is read again from there.
        if start != least and (found.end or 0) < least:
            continue
        end = max((each for each in (found.end, known) if each is not None), default=None)
        state.update({"commits": found.commits, "last_commit": found.last_commit, "read_from": format_lsn(start)})
        break
    state["end"] = None if end is None else format_lsn(end)
    state["first"] = None if end is None else oldest(segments_in(wal, state["timeline"]), state, end)


def oldest(names: Sequence[str], state: HostState, end: int) -> Optional[str]:
    """The first of the segments that lead to ``end`` without a gap, out of the sorted names of all."""
    there, size, first = set(names), state["segment_size"], None
    number = max(end - 1, 0) // size
    while (name := segment_name(state["timeline"], number, size)) in there:
        first, number = name, number - 1
    return first


def _read(state: HostState, wal: str, start: int) -> WalEnd:
    return read_end(state["bin_dir"], wal, state["timeline"], start, state["segment_size"])
