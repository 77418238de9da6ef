# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data directory of a standby, restored from the repository. A primary, or another server's, is never touched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import describe_stanza
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import current_databases
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, Run, parse_error
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import (
    control_value,
    parse_controldata,
    recovery_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.rewind import CLOSED, rewind, why_not
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import now, server_pid, system_user
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import percent_done

# Settings of a standby that are its own. What the primary's ALTER SYSTEM or pgBackRest's restore says of them lies in
# postgresql.auto.conf, which is part of the backup and would win over the standby's configuration.
OWN_SETTINGS = frozenset(
    [
        "archive_cleanup_command",
        "archive_command",
        "archive_library",
        "archive_mode",
        "archive_timeout",
        "cluster_name",
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "hot_standby",
        "ident_file",
        "listen_addresses",
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_wal_senders",
        "max_worker_processes",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_min_apply_delay",
        "restore_command",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_key_file",
        "synchronous_standby_names",
        "unix_socket_directories",
    ]
)
_SETTING = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:=|\s)")


@dataclass(frozen=True)
class Directory:
    """What lies where the standby is to be. ``control`` is pg_controldata's; empty where there is no control file."""

    path: str
    empty: bool
    interrupted: bool
    running: bool
    standby: bool
    control: Mapping[str, str]


def without_own_settings(text: str) -> str:
    """A postgresql.auto.conf without the settings that are a standby's own."""
    lines = []
    for line in text.splitlines(keepends=True):
        match = _SETTING.match(line)
        if match is None or match.group(1).lower() not in OWN_SETTINGS:
            lines.append(line)
    return "".join(lines)


def decide(found: Directory, system_identifier: str, rebuild: bool, host: str) -> str:
    """``none``, ``restore`` or ``delta``: what makes a standby of this server out of a directory.

    Raises RecoveryError for everything that somebody may still need.
    """
    where = f"{found.path} on {host}"
    if found.running and not found.standby:
        raise RecoveryError(
            f"a server that is no standby runs in {where}: a primary is never overwritten. Nothing was changed. Choose "
            "another host, cluster name (postgresql_cluster_name) or data directory (postgresql_data_dir)."
        )
    if found.empty:
        return "restore"
    if found.interrupted:
        return "delta"
    if not found.control:
        raise RecoveryError(
            f"{where} is not empty and holds no PostgreSQL cluster. Nothing was changed. Empty it, or choose another "
            "data directory (postgresql_data_dir)."
        )
    identifier = control_value(found.control, "Database system identifier")
    if identifier != system_identifier:
        raise RecoveryError(
            f"{where} holds another cluster: its system identifier is {identifier}, the primary's {system_identifier}. "
            "Nothing was changed. Drop that cluster if nobody needs it (pg_dropcluster), or choose another cluster "
            "name (postgresql_cluster_name) or data directory (postgresql_data_dir)."
        )
    if rebuild:
        return "delta"
    if not found.standby:
        state = control_value(found.control, "Database cluster state")
        raise RecoveryError(
            f"{where} holds this database, but not as a standby ({state}): it may be an old primary with transactions "
            "that are nowhere else. Nothing was changed. To make it a standby, which loses them, run again with "
            "-e postgresql_standby_rebuild=true."
        )
    return "none"


class Standby:
    """The data directory of one standby on this host."""

    def __init__(
        self,
        path: str,
        *,
        system_identifier: str,
        major_version: int,
        backrest: PgBackRest,
        run: Run,
        rebuild: bool = False,
        rewind_from: str = "",
        config_file: str = "",
        bin_dir: Optional[str] = None,
    ) -> None:
        """``system_identifier`` is the primary's; with ``rebuild`` what of it is there is made anew.

        ``rewind_from`` leads to the primary, where that may be done by pg_rewind, and ``config_file`` is the
        configuration of the directory's server, where that is elsewhere.
        """
        self.path = path
        self.system_identifier = system_identifier
        self.major = major_version
        self.rebuild = rebuild
        self.rewind_from = rewind_from
        self.config_file = config_file if os.path.exists(config_file) else ""
        self.backrest = backrest
        self.run = run
        self.host = socket.gethostname()
        self.bin_dir = find_bin_dir(major_version, bin_dir)
        # Beside the directory, which has to be empty; it also tells how far the restore is.
        self.restoring = f"{self.path.rstrip('/')}.restoring"

    def look(self) -> Directory:
        """What is there now."""
        there = os.path.isdir(self.path)
        return Directory(
            path=self.path,
            empty=not there or not os.listdir(self.path),
            interrupted=os.path.exists(self.restoring),
            running=server_pid(self.path) is not None,
            standby=os.path.exists(os.path.join(self.path, "standby.signal")),
            control=self.control() if os.path.exists(os.path.join(self.path, "global", "pg_control")) else {},
        )

    def control(self) -> dict[str, str]:
        """pg_controldata of the directory."""
        rc, stdout, stderr = self.run(["env", "LC_ALL=C", os.path.join(self.bin_dir, "pg_controldata"), self.path])
        if rc != 0:
            raise RecoveryError(f"pg_controldata cannot read {self.path} on {self.host}: {(stderr or stdout).strip()}")
        return parse_controldata(stdout)

    def ensure(self, check_mode: bool) -> dict[str, Any]:
        """Have the directory hold a standby; the module's result."""
        found = self.look()
        action = decide(found, self.system_identifier, self.rebuild, self.host)
        unwound = "it was not asked for"
        if action != "none":
            self.check_place()
            self.check_repository()
            if not check_mode:
                if found.running:
                    self.stop()
                if action == "delta" and not found.interrupted and self.rewind_from:
                    unwound = self.rewind()
                    action = action if unwound else "rewind"
                if action != "rewind":
                    self.restore(action)
        control = found.control if action == "none" or check_mode else self.control()
        return {
            "changed": action != "none",
            "action": action,
            "not_rewound": "" if action != "delta" or check_mode else unwound,
            "settings": recovery_settings(control) if control else {},
        }

    def check_place(self) -> None:
        """Refuse a place beside which nothing can be written down."""
        parent = os.path.dirname(self.path.rstrip("/"))
        if os.path.isdir(parent) and not os.access(parent, os.W_OK | os.X_OK):
            user = system_user()
            raise RecoveryError(
                f"{user} may not write in {parent} on {self.host}, where it has to be known how far {self.path} is. "
                f"Nothing was changed. Let that user write there, or have the data directory in one of his own "
                "(postgresql_data_dir)."
            )

    def check_repository(self) -> None:
        """Refuse a repository without a backup of this very server."""
        info = describe_stanza(self.backrest)
        wanted = self.system_identifier
        known = [str(entry["system_identifier"]) for entry in current_databases(info)]
        if wanted not in known:
            raise RecoveryError(
                f"the repository of stanza {self.backrest.stanza!r}, as {self.host} sees it, holds the server with "
                f"system identifier {', '.join(known) or '(none)'}, but the primary's is {wanted}. Nothing was "
                "changed. Let pgBackRest on this host reach the primary's repository (pgbackrest_config)."
            )
        if not info.get("backups"):
            raise RecoveryError(
                f"stanza {self.backrest.stanza!r} has no backup to build a standby from, seen from {self.host}. "
                "Nothing was changed. Take one: provision-primary."
            )

    def stop(self) -> None:
        """Stop the standby that runs there."""
        stop = [os.path.join(self.bin_dir, "pg_ctl"), "stop", "-w", "-s", "-m", "fast", "-D", self.path]
        rc, stdout, stderr = self.run(stop)
        if rc != 0:
            raise RecoveryError(f"the standby in {self.path} does not stop: {(stderr or stdout).strip()}")

    def rewind(self) -> str:
        """Have what differs from the primary be as there; why that was not possible, or empty."""
        if reason := why_not(self.control()):
            return reason
        self.tell(0)
        # What says that this is a standby goes before the control file tells of the new state.
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        os.chmod(self.path, CLOSED)
        if reason := rewind(self.bin_dir, self.path, self.major, self.rewind_from, self.config_file):
            return reason
        write_atomically(os.path.join(self.path, "standby.signal"), "")
        os.chmod(self.path, mode)
        self.finish()
        return ""

    def restore(self, action: str) -> None:
        """Restore as a standby; what was begun and not ended is known by the file beside the directory."""
        os.makedirs(os.path.dirname(self.path.rstrip("/")), exist_ok=True)
        self.tell(0)
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        argv = [self.backrest.executable, f"--stanza={self.backrest.stanza}", f"--pg1-path={self.path}"]
        places = {"config": self.backrest.config, "repo": self.backrest.repo}
        argv += [f"--{name}={value}" for name, value in places.items() if value]
        argv += ["--type=standby", "--log-level-console=detail", "--log-level-stderr=off"]
        if action == "delta":
            self.prepare_delta()
            argv.append("--delta")
        argv.append("restore")
        tail: list[str] = []
        told = 0.0
        # A module's run_command would keep its progress from us until the end.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                tail = [*tail[-40:], line]
                if time.monotonic() - told >= 1 and percent_done(line):
                    told = time.monotonic()
                    self.tell(percent_done(line))
        if process.returncode != 0:
            raise RecoveryError(
                f"pgBackRest could not restore the standby to {self.path} on {self.host} (exit code "
                f"{process.returncode}): {parse_error(''.join(tail))[1]}. The primary was not touched. Remove the "
                "cause and run again: it goes on with what is there.",
                rc=process.returncode,
            )
        self.finish()

    def finish(self) -> None:
        """Leave it no setting of the primary's own, and the file beside no longer says that it is half done."""
        auto = os.path.join(self.path, "postgresql.auto.conf")
        with open(auto, encoding="utf-8") as file:
            text = file.read()
        write_atomically(auto, without_own_settings(text))
        os.unlink(self.restoring)

    def prepare_delta(self) -> None:
        """Have the directory be one that pgBackRest goes on with; nothing runs there."""
        if not any(os.path.exists(os.path.join(self.path, name)) for name in ("PG_VERSION", "backup.manifest")):
            # A restore of ours that was killed before it had written anything that tells what this is.
            shutil.rmtree(self.path)
            os.makedirs(self.path, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, "postmaster.pid"))  # of a server that was killed
        if stat.S_IMODE(os.stat(self.path).st_mode) == CLOSED:
            # Of a rewind that did not come to its end: nobody may start that, also when it can be entered again.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, "global", "pg_control"))
            os.chmod(self.path, 0o700)

    def tell(self, done: float) -> None:
        """Say how far the restore is, and that it has begun."""
        step = {"at": now(), "what": "restore", "done": round(100 * done), "total": 100, "unit": "per cent"}
        write_atomically(self.restoring, json.dumps(step) + "\n")
