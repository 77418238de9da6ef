# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cluster on this host: what it is, what starts it, and its server process."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT, run
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import find_managers
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import read_control
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid

_POLL = 0.1
# Directories that PostgreSQL makes in a data directory. Where one is a link, it leads to storage of this cluster.
_STORAGE = frozenset(
    (
        *("base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_multixact", "pg_notify", "pg_replslot"),
        *("pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_twophase", "pg_wal"),
        "pg_xact",
    )
)
# No relation of users: a transaction that is open at the target, or prepared, may have locked it for ever.
READ_CATALOGUE = """
SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
"""
# A server of ours that nobody else gets into, and that does nothing by itself.
_ALONE = {
    "listen_addresses": "",
    "external_pid_file": "",
    "autovacuum": "off",
    "max_logical_replication_workers": "0",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "hot_standby": "on",
}
_ASKED = """
SELECT pg_catalog.json_build_object(
  'data', pg_catalog.current_setting('data_directory'),
  'version_num', pg_catalog.current_setting('server_version_num')::int,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'archive_mode', pg_catalog.current_setting('archive_mode'),
  'checksums', pg_catalog.current_setting('data_checksums'),
  'standbys', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
  'bytes', (SELECT pg_catalog.sum(pg_catalog.pg_database_size(oid)) FROM pg_catalog.pg_database),
  'tablespaces', (SELECT pg_catalog.json_object_agg(oid, pg_catalog.pg_tablespace_size(oid))
                    FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
  'files', (SELECT pg_catalog.json_agg(DISTINCT file) FROM (
      SELECT sourcefile AS file FROM pg_catalog.pg_file_settings
      UNION SELECT setting FROM pg_catalog.pg_settings
        WHERE setting <> '' AND name = ANY ('{config_file,hba_file,ident_file,ssl_ca_file,ssl_cert_file,ssl_crl_file,
          ssl_key_file,ssl_dh_params_file}')) AS found))::text
"""


class Known(TypedDict):
    """What is known of a cluster before it is touched; kept for a run that finds it stopped."""

    data: str
    major: int
    bin_dir: str
    system_identifier: str
    timeline: int
    archive_mode: str
    checksums: bool
    standbys: int
    bytes: int
    tablespaces: dict[str, int]
    files: list[str]
    options: str
    log: str
    unit: str


def look(login: Login, bin_dir: Optional[str] = None) -> Known:
    """The running cluster; RecoveryError where it is one that must not be exchanged from here."""
    host = socket.gethostname()
    managers = find_managers()
    if managers:
        named = "; ".join(f"{one['name']} ({one['found']})" for one in managers)
        raise RecoveryError(
            f"{named} on {host} has this server in its hands, and would start it again or promote another behind our "
            "back. Nothing was changed. Pause it and end it on this host first, and build its standbys anew afterwards."
        )
    connection = connect(login, any_database=True)
    try:
        found: dict[str, Any] = json.loads(value(connection, _ASKED))
    finally:
        connection.close()
    data = os.path.realpath(found["data"])
    if found["in_recovery"]:
        raise RecoveryError(f"the server in {data} on {host} is a standby. Nothing was changed. Name its primary.")
    if found["archive_mode"] == "off":
        raise RecoveryError(
            f"the server in {data} on {host} does not archive (archive_mode=off), so that a new timeline of it could "
            "not be recovered. Nothing was changed. Set it (provision-primary)."
        )
    pid = server_pid(data)
    if pid is None:
        raise RecoveryError(f"no server runs in {data} on {host}, which answered all the same. Nothing was changed.")
    bin_dir = find_bin_dir(found["version_num"] // 10000, bin_dir)
    control = read_control(bin_dir, data)
    return {
        "data": data,
        "major": found["version_num"] // 10000,
        "bin_dir": bin_dir,
        "system_identifier": control_value(control, "Database system identifier"),
        "timeline": int(control_value(control, "Latest checkpoint's TimeLineID")),
        "archive_mode": found["archive_mode"],
        "checksums": found["checksums"] == "on",
        "standbys": int(found["standbys"]),
        "bytes": int(found["bytes"]),
        "tablespaces": found["tablespaces"] or {},
        "files": _inside(found["files"] or [], data),
        "options": options_of(data),
        "log": _output_of(pid),
        "unit": unit_of(pid),
    }


def _inside(files: Sequence[str], data: str) -> list[str]:
    """Those of the configuration files that lie in the data directory, relative to it; ALTER SYSTEM's file apart.

    A link there is one of them, wherever it leads: a backup has what it led to when it was taken.
    """
    there = set()
    for name in filter(None, files):
        whole = os.path.join(data, name)
        beside = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        for path in (beside, os.path.realpath(whole)):
            below = os.path.relpath(path, data)
            if not below.startswith("..") and os.path.isfile(path):
                there.add(below)
    return sorted(there - {"postgresql.auto.conf"})


def links_in(data: str) -> dict[str, str]:
    """Links in the data directory that people made, and where each leads; those of PostgreSQL's own storage apart.

    A restore makes files and directories of them, with what the backup has of what was there.
    """
    found = {}
    for directory, directories, names in os.walk(data):
        if directory == data:
            directories[:] = [name for name in directories if name not in _STORAGE]
        for path in (os.path.join(directory, name) for name in (*directories, *names)):
            if os.path.islink(path):
                found[os.path.relpath(path, data)] = os.readlink(path)
    return found


def put_configuration(source: str, data: str, files: Sequence[str], links: Mapping[str, str]) -> None:
    """Have in ``data`` the ``links``, and the files that ``source`` has. Writes nothing through links."""
    for name, leads_to in links.items():
        place = os.path.join(data, name)
        if os.path.islink(place) and os.readlink(place) == leads_to:
            continue
        if os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
        with suppress(FileNotFoundError):
            os.unlink(place)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.symlink(leads_to, place)
    for name in files:
        place = os.path.join(data, name)
        if name not in links:
            if os.path.islink(place):
                os.unlink(place)
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            shutil.copy2(os.path.join(source, name), place)


def options_of(data: str) -> str:
    """Options with which the server was started, but its data directory, quoted as pg_ctl takes them."""
    with open(os.path.join(data, "postmaster.opts"), encoding="utf-8") as file:
        words = shlex.split(file.readline())[1:]
    while "-D" in words:
        at = words.index("-D")
        del words[at : at + 2]
    return shlex.join(words)


def _output_of(pid: int) -> str:
    """The file that a server writes its first words to; /dev/null where it is none."""
    path = os.readlink(f"/proc/{pid}/fd/2")
    return path if os.path.isfile(path) else os.devnull


def unit_of(pid: int) -> str:
    """The unit of systemd that runs a server; empty where somebody started it by hand."""
    with suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        match = re.search(r"([^/\s]+\.service)\s*$", file.read())
        if match and run(["systemctl", "show", "-p", "MainPID", match.group(1)])[1].strip() == f"MainPID={pid}":
            return match.group(1)
    return ""


def version_directory(path: str, major: int) -> str:
    """Name of the directory that a tablespace has for this major version."""
    found = glob.glob(os.path.join(glob.escape(path), f"PG_{major}_*[0-9]"))
    names = [os.path.basename(one) for one in found if re.fullmatch(r"PG_\d+_\d+", os.path.basename(one))]
    if len(names) != 1:
        raise RecoveryError(f"{path} on {socket.gethostname()} is no tablespace of one server of PostgreSQL {major}.")
    return names[0]


class Server:
    """Starts and stops the server of a cluster where systemd does not, and asks it."""

    def __init__(self, known: Known, login: Login, timeout: float) -> None:
        self.known = known
        self.data = known["data"]
        self.login = login
        self.timeout = timeout
        self.host = socket.gethostname()

    def pid(self) -> Optional[int]:
        """The process; None where it does not run."""
        return server_pid(self.data)

    def socket_directory(self) -> str:
        """Where the running server has its socket (line 5 of postmaster.pid)."""
        with suppress(OSError, IndexError), open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as file:
            return file.read().splitlines()[4].strip()
        return ""

    def start(self, alone_in: str = "") -> None:
        """Start it as it was started before; ``alone_in`` is a directory for a socket that only we find."""
        options = self.known["options"]
        if alone_in:
            os.makedirs(alone_in, mode=0o700, exist_ok=True)
            settings = {**_ALONE, "unix_socket_directories": alone_in}
            options += "".join(f" -c {shlex.quote(f'{name}={setting}')}" for name, setting in settings.items())
        argv = self._pg_ctl("start", "-l", self.known["log"], "-o", options)
        with open(os.devnull, "r+b") as null:
            # Not captured: the server inherits what pg_ctl has, and would hold our pipes open for ever.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                argv, stdin=null, stdout=null, stderr=null, env=clean_environment(), cwd="/", check=False
            )
        if done.returncode != 0:
            raise RecoveryError(
                f"the server in {self.data} on {self.host} does not start within {self.timeout:.0f} s. Its log "
                f"({self.known['log']}, log_directory) ends with: {self.last_words()}. Run this again when that is "
                "mended, it goes on."
            )

    def stop(self) -> None:
        """Stop it in order, so that it archives what it has."""
        if self.pid() is None:
            return
        rc, stdout, stderr = run(self._pg_ctl("stop", "-m", "fast"))
        if self.pid() is not None:
            raise RecoveryError(
                f"the server in {self.data} on {self.host} does not stop within {self.timeout:.0f} s: "
                f"{(stderr or stdout).strip() or rc}. Nothing was moved. See what it waits for (mostly its archiver), "
                "and run this again."
            )

    def last_words(self) -> str:
        """The end of the file that it writes its first words to."""
        if not os.path.isfile(self.known["log"]):
            return "nothing that is known here"
        with open(self.known["log"], "rb") as file:
            file.seek(max(os.path.getsize(self.known["log"]) - 2000, 0))
            lines = file.read().decode(errors="replace").splitlines()
        loud = [line for line in lines if "FATAL" in line or "PANIC" in line or "ERROR" in line]
        return " / ".join((loud or lines)[-3:]) or "nothing"

    def _pg_ctl(self, command: str, *more: str) -> list[str]:
        pg_ctl = os.path.join(self.known["bin_dir"], "pg_ctl")
        return [pg_ctl, command, "-w", "-s", "-D", self.data, "-t", str(int(self.timeout)), *more]

    def control(self) -> Mapping[str, str]:
        """pg_controldata of the data directory."""
        return read_control(self.known["bin_dir"], self.data)

    def wait_open(self) -> Any:
        """A session of the server once it takes writes."""
        deadline = time.monotonic() + self.timeout
        while True:
            complaint = "it is still in recovery"
            # A session during replay could end it (see SideRecovery.try_session). The server removes this at its end.
            if not os.path.exists(os.path.join(self.data, "recovery.signal")):
                try:
                    connection = connect(self.login, any_database=True)
                    connection.autocommit = True
                    if not value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
                        return connection
                    connection.close()
                except RecoveryError as error:
                    complaint = error.msg
            if self.pid() is None or time.monotonic() > deadline:
                raise RecoveryError(
                    f"the server in {self.data} on {self.host} does not take writes: {complaint}. See its log "
                    f"({self.known['log']}, log_directory). What it replaces is kept. Run this again when that is "
                    "mended, it goes on; or take it back."
                )
            time.sleep(_POLL)

    def open_all(self, connection: Any) -> list[str]:
        """Names of the databases, after a session in each that lets anybody in has read its catalogue."""
        found = rows(connection, "SELECT datname::text AS name, datallowconn AS open FROM pg_catalog.pg_database")
        for one in found:
            if one["open"]:
                inside = connect(self.login, one["name"])
                try:
                    value(inside, READ_CATALOGUE)
                finally:
                    inside.close()
        return sorted(one["name"] for one in found)


def clean_environment() -> dict[str, str]:
    """Environment of a server: nothing of the caller's libpq settings."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    kept.update({name: text for name, text in os.environ.items() if name.startswith("PGBACKREST_REPO")})
    return {**kept, **ENVIRONMENT}
