# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy with a standby of its own, beside it on this host, each run by a unit of systemd as a real one is.

The standby is restored from the copy's own repository and streams by the copy's socket. It archives into that
repository once it is promoted. All settings that isolate the copy are on its command line, too, but for
``primary_conninfo``, which a failover takes away; what that is is read back before any damage.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._drill.copy import STANDBY, CopyInstance, read_back
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import render_hba, render_ident
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import free_port, system_user
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery

with suppress(ImportError):  # connect() says so
    from psycopg2.extensions import make_dsn

NAME = "dbre_drill_standby"
SERVE = "serve"
# What each was when the drill began.
ROLES = ("primary", "standby")
# For the standby, the restore of another one, and a look at them.
LEAST_SENDERS = 10
_STANZA = re.compile(r"[A-Za-z0-9_.-]+")
_STREAMS = "SELECT 1 FROM pg_catalog.pg_stat_replication WHERE application_name = %s AND state = 'streaming'"


class StandbyInstance(CopyInstance):
    """The standby of a copy: below it, with its repository."""

    def __init__(self, copy: CopyInstance) -> None:
        super().__init__(copy.below(STANDBY))
        self.own_config = copy.own_config
        self.repository = copy.repository

    def pgbackrest(self, executable: str, *words: str) -> list[str]:
        return super().pgbackrest(executable, f"--pg1-path={self.data}", *words)

    def isolation(self, marker: Mapping[str, Any]) -> dict[str, str]:
        get = shlex.join(self.pgbackrest(marker["executable"])).replace("%", "%%") + ' archive-get %f "%p"'
        settings = {**super().isolation(marker), "restore_command": get}
        del settings["primary_conninfo"]
        return settings


def unit_name(stanza: str, role: str) -> str:
    """Name of the unit that runs a server of the drill of a stanza; RecoveryError where it cannot be in one."""
    if not _STANZA.fullmatch(stanza):
        raise RecoveryError(f"stanza {stanza!r} cannot be in the name of a unit. Nothing was touched.")
    return f"dbre-drill-{stanza}-{role}.service"


def conninfo_to(copy: CopyInstance, marker: Mapping[str, Any]) -> str:
    """How the standby reaches the copy: by its socket, which no other user can enter."""
    return str(make_dsn(host=copy.run_dir, port=marker["port"], user=marker["superuser"], application_name=NAME))


def serve_text(instance: CopyInstance, marker: Mapping[str, Any]) -> str:
    """The script by which a unit starts the server, with what isolates it on its command line."""
    settings = {"config_file": instance.below("postgresql.conf"), **instance.isolation(marker)}
    server = [os.path.join(marker["bin_dir"], "postgres"), "-D", instance.data]
    for name, value in settings.items():
        server += ["-c", f"{name}={value}"]
    known = [f"{name}={value}" for name, value in instance.environment().items()]
    return (
        f"cd {shlex.quote(instance.path)} || exit 1\numask 077\n"
        f"exec env -i {shlex.join([*known, *server])} >> {shlex.quote(instance.log_file)} 2>&1\n"
    )


class Pair:
    """The copy at a path, and the standby below it."""

    def __init__(self, path: str) -> None:
        self.first = CopyInstance(path)
        self.second = StandbyInstance(self.first)

    def prepare(self, stanza: str, timeout: float) -> dict[str, Any]:
        """Stop the copy, restore its standby, and leave both to be started by units; what leads to the standby."""
        marker = self.first.marker()
        self.first.stop(marker)
        settings = dict(marker["settings"])
        settings["synchronous_commit"] = "on"  # what is acknowledged is to outlive the crash
        settings["max_wal_senders"] = str(max(int(settings.get("max_wal_senders") or 0), LEAST_SENDERS))
        marker = {**marker, "settings": settings, "standby": {"stanza": stanza}}
        self.first.write_marker(marker)
        self._configure(self.first, marker)
        own = {**marker, "port": free_port(), "made_path": True}
        own["settings"] = {**settings, "primary_conninfo": conninfo_to(self.first, marker)}
        self.second.make_directories()
        self.second.write_marker(own)
        self._restore(marker, timeout)
        write_atomically(self.second.below("pg_ident.conf"), render_ident(system_user(), marker["superuser"]))
        self._configure(self.second, own)
        return {
            "service": unit_name(stanza, ROLES[0]),
            "standby": {
                "service": unit_name(stanza, ROLES[1]),
                "port": own["port"],
                "socket": self.second.run_dir,
                "data_directory": self.second.data,
            },
            "failover_path": self.first.below("failover"),
        }

    def _restore(self, marker: Mapping[str, Any], timeout: float) -> None:
        words = ("--type=standby", f"--tablespace-map-all={self.second.tablespaces}", "restore")
        argv = self.second.pgbackrest(marker["executable"], *words)
        done = self.first.call(argv, timeout=timeout)
        if done.returncode != 0:
            raise RecoveryError(
                f"the copy at {self.first.path} on {self.first.host} got no standby: {shlex.join(argv)} ended with "
                f"{done.returncode}: {(done.stderr or done.stdout).strip()[-1000:]}"
            )

    @staticmethod
    def _configure(instance: CopyInstance, marker: Mapping[str, Any]) -> None:
        instance.write_settings(marker)
        write_atomically(instance.below("pg_hba.conf"), render_hba() + "local replication all peer map=side\n")
        # Who reads the settings of a dead server looks there; what only the backup's server had goes.
        include = f"include '{instance.below('postgresql.conf')}'\n"
        write_atomically(os.path.join(instance.data, "postgresql.conf"), include)
        write_atomically(os.path.join(instance.data, "postgresql.auto.conf"), "")
        write_atomically(instance.below(SERVE), serve_text(instance, marker))

    def wait_streaming(self, timeout: float) -> list[dict[str, Any]]:
        """Wait until the standby streams from the copy; what is in force then of all that isolates both."""
        both = [SideRecovery(instance, timeout) for instance in (self.first, self.second)]
        both[0].wait_open()
        deadline = time.monotonic() + timeout
        while not self._streams(both):
            if time.monotonic() > deadline or self.second.pid() is None:
                raise RecoveryError(
                    f"the standby of the copy at {self.first.path} on {self.first.host} does not stream from it. No "
                    f"damage was done. Its log: {self.second.log_text({})[-1000:].strip()}"
                )
            time.sleep(0.1)
        conninfo = {"primary_conninfo": conninfo_to(self.first, both[0].marker)}
        read = [read_back(both[0]), read_back(both[1], conninfo)]
        return [
            {**item, "setting": f"{item['setting']} of the {role}"}
            for role, items in zip(ROLES, read)
            for item in items
        ]

    def _streams(self, both: list[SideRecovery]) -> bool:
        with suppress(RecoveryError):
            return self.second.accepts_connections() and bool(both[0].rows(_STREAMS, (NAME,)))
        return False
