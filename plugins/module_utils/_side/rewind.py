# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a server that has left its primary's way a copy of it again by what differs alone (pg_rewind).

It reads the primary's files over a connection, as a base backup does, and WAL of both from the last checkpoint that
they had in common. Of a large database little travels, and nothing is read but that. Where it cannot begin it changes
nothing; where it ends in the middle the directory has to be restored.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT, run
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.passfile import parse
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value

# From this version on pg_rewind can be told where the configuration is, which says how to get WAL from the archive.
CONFIG_FILE_SINCE = 15
# PostgreSQL does not start in a directory that a group may write to (miscinit.c: checkDataDir). Without the right to
# enter it, that right is good for nothing.
CLOSED = 0o720


def why_not(control: Mapping[str, str]) -> str:
    """Why a directory cannot be rewound, from its pg_controldata; empty where it can be tried.

    pg_rewind has to know each page that was changed since (pg_rewind.c: sanityChecks). When the server was not shut
    down in order, it would run it once, as a primary; that is not done.
    """
    hints = control.get("wal_log_hints setting") == "on"
    if not hints and control_value(control, "Data page checksum version") == "0":
        return "it has neither data checksums nor wal_log_hints"
    state = control_value(control, "Database cluster state")
    return "" if state in ("shut down", "shut down in recovery") else f"it was not shut down in order ({state})"


def rewind(bin_dir: str, data: str, major: int, source: str, config_file: str) -> str:
    """Rewind ``data`` to the primary that ``source`` leads to; why it failed, or empty.

    ``source`` is a connection string whose values have neither blanks nor quotes. The password is that of the passfile
    which it names.
    """
    environment = {**os.environ, **ENVIRONMENT}
    try:
        words = dict(word.split("=", 1) for word in source.split())
        if "passfile" in words:
            with open(words["passfile"], encoding="utf-8") as file:
                secret = parse(file.read(), words["user"], words["passfile"])
            environment["PGPASSWORD"] = secret.password if secret else ""
    except (OSError, KeyError, RecoveryError) as error:
        return str(error)
    argv = [os.path.join(bin_dir, "pg_rewind"), f"--target-pgdata={data}", f"--source-server={source}"]
    if _restores(bin_dir, data, config_file) and (not config_file or major >= CONFIG_FILE_SINCE):
        argv += ["--restore-target-wal", *([f"--config-file={config_file}"] if config_file else [])]
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return ""
    lines = [
        line for line in done.stderr.splitlines() if "error:" in line or "fatal:" in line
    ] or done.stderr.splitlines()
    return "; ".join(lines[-2:]) or f"exit code {done.returncode}"


def _restores(bin_dir: str, data: str, config_file: str) -> bool:
    """Whether its configuration says how to get WAL out of the archive."""
    where = [f"--config-file={config_file}"] if config_file else []
    rc, stdout, _stderr = run([os.path.join(bin_dir, "postgres"), "-D", data, *where, "-C", "restore_command"])
    return rc == 0 and bool(stdout.strip())
