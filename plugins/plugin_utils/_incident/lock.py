# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError


def process_start(pid: int) -> str | None:
    """When process ``pid`` of this machine started, as a text only good for comparing; None when it does not live.

    A process id alone is not enough: after a kill it is given to another process sooner or later.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        # proc(5): field 2 is the program's name in parentheses and may hold spaces; state is 3, starttime is 22.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else f"{boot} {fields[19]}"
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def this_run() -> dict[str, Any]:
    """Who runs now: the ansible-playbook process, which is the parent of the worker that an action plugin lives in."""
    pid = os.getppid()
    return {"host": socket.gethostname(), "pid": pid, "start": process_start(pid)}


class RunLock:
    """One run at a time for one incident.

    A lock held by the action plugin's process would end with the task. So the file names the ansible-playbook process
    (host, process id, its start time) and holds as long as that process lives; after ``kill -9`` the next run takes it
    over. Reading and writing the file is guarded by flock, so two runs starting together cannot both win.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keep every other call on this incident out for the moments that files are read and written."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> dict[str, Any] | None:
        """The run named in the file, dead or alive; None when the lock is free or its writer was killed."""
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
            return {"host": holder["host"], "pid": int(holder["pid"]), "start": holder["start"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_held_by(self, me: dict[str, Any]) -> bool:
        return self.holder() == me

    def take(self, me: dict[str, Any]) -> None:
        """Make ``me`` the holder; call within :meth:`guard`. Raises IncidentError while another run lives."""
        holder = self.holder()
        gone = holder is None or (holder["host"] == me["host"] and process_start(holder["pid"]) != holder["start"])
        if holder is None or gone or holder == me:
            self._write(json.dumps(me))
            return
        incident = self.path.parent.name
        text = (
            f"incident {incident} is being worked on by another run: process {holder['pid']} on {holder['host']}. "
            "Nothing was touched. "
        )
        if holder["host"] == me["host"]:
            raise IncidentError(text + "Wait for it, or end that process and run again with the same incident id.")
        raise IncidentError(
            text
            + f"Whether it still lives cannot be seen from {me['host']}: if it is gone, remove {self.path}, run again."
        )

    def release(self) -> None:
        """Leave the lock free; call within :meth:`guard`. The file stays, so that flock keeps guarding one inode."""
        self._write("")

    def _write(self, text: str) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
