# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows that only an old primary has, read from its own disk before that becomes a standby's.

Its server is started once more where it is, caged: no network, no archive, no library of anybody, a socket and a
pg_hba.conf of our own. It replays its WAL, and what its last transactions inserted or updated is copied into files.
What it had before is kept: the WAL from the fork on and the control file were copied before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory, write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import Place
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import recovery_settings
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import (
    isolation_settings,
    render_hba,
    render_ident,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid, system_user

File = tuple[int, int, int]
"""Tablespace, database and filenode, by their OIDs, as WAL names a relation."""

_PORT = 5432  # of a socket in a directory of our own
_PATIENCE = 600.0
_POLL = 0.1
_DATABASES = "SELECT oid::int AS oid, datname FROM pg_database WHERE oid = ANY(%s) AND datallowconn ORDER BY datname"
# Parents of other files (TOAST, indexes), and what a query makes anew, have no rows of their own to keep.
_TABLES = """
SELECT DISTINCT c.oid::int AS oid, n.nspname, c.relname
  FROM unnest(%s::oid[], %s::oid[]) AS file(tablespace, node)
  JOIN pg_class c ON c.oid = pg_filenode_relation(file.tablespace, file.node) AND c.relkind = 'r'
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY n.nspname, c.relname
"""
_COPY = (
    "COPY (SELECT * FROM ONLY {table} WHERE xmin::text::bigint = ANY('{{{xids}}}'::bigint[]))"
    " TO STDOUT WITH (FORMAT csv, HEADER)"
)


def keep_rows(
    place: Place,
    bin_dir: str,
    keep: str,
    superuser: str,
    control: Mapping[str, str],
    xids: Collection[int],
    files: Collection[File],
) -> list[dict[str, Any]]:
    """Copy what transactions ``xids`` inserted or updated in ``files`` into CSV files below ``keep``/rows.

    Returns ``[{database, schema, table, rows, file}]`` with the rows as the last of them left them. RecoveryError where
    the server does not start or a table cannot be read; what was copied so far is removed then.
    """
    target, scratch = os.path.join(keep, "rows"), os.path.join(keep, "rows.new")
    known = os.path.join(target, "rows.json")
    if os.path.exists(known):
        with open(known, encoding="utf-8") as file:
            return list(json.load(file))
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch, mode=0o700)
    try:
        with _caged(place, bin_dir, superuser, control, keep) as login:
            found = _copy_all(login, scratch, xids, files)
        write_atomically(os.path.join(scratch, "rows.json"), json.dumps(found, indent=1) + "\n")
        sync_directory(scratch)
        os.rename(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def end_left_behind(data: str, keep: str) -> None:
    """End the caged server of a run that was killed, and nobody else's; ``keep`` is that run's directory."""
    pid = server_pid(data)
    if pid is None:
        return
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
    except OSError:
        return
    if os.fsencode(_mark(keep)) in words.split(b"\0"):
        _end(pid, data)
        cage = re.search(rb"\0unix_socket_directories=([^\0]*/dbre-[^/\0]+)\0", words)
        if cage:
            shutil.rmtree(os.fsdecode(cage.group(1)), ignore_errors=True)


def _mark(keep: str) -> str:
    """What the command line of our server has, and no other's."""
    return f"cluster_name={os.path.basename(keep)[:63]}"


@contextmanager
def _caged(place: Place, bin_dir: str, superuser: str, control: Mapping[str, str], keep: str) -> Iterator[Login]:
    """The server of ``place`` while it runs caged, and how to get in."""
    with tempfile.TemporaryDirectory(prefix="dbre-") as cage:  # short, for a socket's path
        for name, text in (
            ("postgresql.conf", ""),
            ("pg_hba.conf", render_hba()),
            ("pg_ident.conf", render_ident(system_user(), superuser)),
        ):
            write_atomically(os.path.join(cage, name), text)
        settings = {
            "config_file": f"{cage}/postgresql.conf",
            "data_directory": place.data,
            "hba_file": f"{cage}/pg_hba.conf",
            "ident_file": f"{cage}/pg_ident.conf",
            "external_pid_file": "",
            "unix_socket_directories": cage,
            "port": str(_PORT),
            "ssl": "off",
            "autovacuum": "off",
            "default_transaction_read_only": "on",
            "synchronous_standby_names": "",
            "logging_collector": "off",
            "log_destination": "stderr",
            **{name: str(number) for name, number in recovery_settings(control).items()},
            **isolation_settings(place.major),
        }
        log = os.path.join(cage, "log")
        argv = [os.path.join(bin_dir, "postgres"), "-D", place.data]
        argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(log, "wb") as out, open(os.devnull, "rb") as nothing:
            # It outlives nobody: it is ended below, and by the next run where this one is killed.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                [*argv, "-c", _mark(keep)],
                stdin=nothing,
                stdout=out,
                stderr=out,
                cwd="/",
                env={**os.environ, **ENVIRONMENT},
            )
        try:
            login: Login = {"login_unix_socket": cage, "login_port": _PORT, "login_user": superuser}
            _wait(process, login, log)
            yield login
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait(60)


def _wait(process: subprocess.Popen[bytes], login: Login, log: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connect(login, any_database=True, libraries=False).close()
            return
        except RecoveryError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8", errors="replace") as file:
                    said = " ".join(file.read().split())[-600:]
                raise RecoveryError(f"the old primary's server does not start once more: {said or error.msg}") from None
        time.sleep(_POLL)


def _copy_all(login: Login, folder: str, xids: Collection[int], files: Collection[File]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    connection = connect(login, any_database=True, libraries=False)
    try:
        databases = rows(connection, _DATABASES, ([database for _space, database, _node in files],))
    finally:
        connection.close()
    for database in databases:
        mine = [(space, node) for space, oid, node in files if oid == database["oid"]]
        connection = connect(login, database["datname"], libraries=False)
        try:
            for table in rows(connection, _TABLES, ([space for space, _node in mine], [node for _space, node in mine])):
                copied = _copy(connection, folder, database["datname"], table, xids)
                if copied is not None:
                    found.append(copied)
        finally:
            connection.close()
    return found


def _copy(
    connection: Any, folder: str, database: str, table: Mapping[str, Any], xids: Collection[int]
) -> Optional[dict[str, Any]]:
    """Copy the rows of one table; None where it has none of them any more."""
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{database}.{table['nspname']}.{table['relname']}")[:180]
    name = f"{readable}.{table['oid']}.csv"
    statement = _COPY.format(
        table=quote_name(table["nspname"], table["relname"]), xids=",".join(map(str, sorted(xids)))
    )
    with open(os.path.join(folder, name), "wb") as file, connection.cursor() as cursor:
        os.fchmod(file.fileno(), 0o600)
        cursor.copy_expert(statement, file)
        number = int(cursor.rowcount)
        os.fsync(file.fileno())
    if number == 0:
        os.unlink(os.path.join(folder, name))
        return None
    return {"database": database, "schema": table["nspname"], "table": table["relname"], "rows": number, "file": name}


def _end(pid: int, data: str) -> None:
    for number, patience in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 60.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if server_pid(data) is None:
                return
            time.sleep(_POLL)
