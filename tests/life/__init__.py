# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Life beside the incident: what goes on, on a server in production, while somebody loses a table and gets it back.

In three databases of its own, and in a schema of its own (``life``) of others that are named: tables and whole
databases made and dropped, temporary tables, indexes built concurrently, views refreshed, tables rewritten, routine
deletes and updates of many rows, checkpoints, idle and prepared transactions. Tables of a test are never touched.

In Python ``with Life(socket, port): ...``; on a host ``python3 -m life --socket PATH --port N``, where this package's
directory is. It needs nothing but psycopg2 and a superuser at the socket.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

# Autovacuum at its most eager: every table with one dead row, once a second, as fast as it can, freezing what it sees.
EAGER = {
    "autovacuum": "on",
    "autovacuum_naptime": "2s",  # a worker for each database each time, of every server that lives at once
    "autovacuum_vacuum_threshold": "0",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_insert_threshold": "0",
    "autovacuum_vacuum_insert_scale_factor": "0",
    "autovacuum_analyze_threshold": "0",
    "autovacuum_analyze_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "0",
    "vacuum_freeze_min_age": "0",
}
SCHEMA = "life"


def eager_conf() -> str:
    """``EAGER`` as lines of postgresql.conf."""
    return "".join(f"{name} = {value}\n" for name, value in EAGER.items())


class Life:
    """Runs as a process of its own from ``start`` to ``stop``; ends with this process, and after ``seconds``.

    ``inside`` names databases in which it lives too; ``pause`` is the seconds each of its sessions rests between two
    pieces of work.
    """

    def __init__(
        self,
        socket: str,
        port: int,
        *,
        user: Optional[str] = None,
        inside: tuple[str, ...] = (),
        pause: float = 1.0,
        seconds: float = 900,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="life-")
        self._status = Path(self._folder.name) / "status.json"
        self._log = Path(self._folder.name) / "log"
        words = ["--socket", socket, "--port", str(port), "--pause", str(pause), "--seconds", str(seconds)]
        words += ["--status", str(self._status), *(word for name in inside for word in ("--inside", name))]
        self._words = words + (["--user", user] if user else [])
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> Life:
        """Returns once its databases are there and its sessions work."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "life", *self._words, "--with-parent"],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait(bool, 60)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None
        self._folder.cleanup()

    def done(self) -> dict[str, int]:
        """How often each kind of work was done until now."""
        return dict(self._read().get("done", {}))

    def failed(self) -> dict[str, int]:
        """What went wrong, and how often. A server that is stopped, or a database that is gone, goes wrong here."""
        return dict(self._read().get("failed", {}))

    def wait_for_every_kind(self, more: int = 1, timeout: float = 60) -> None:
        """Wait until each kind of work was done ``more`` times from now on."""
        before = self.done()
        self._wait(lambda status: all(n >= before.get(kind, 0) + more for kind, n in status["done"].items()), timeout)

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._status.read_text())) if self._status.exists() else {}

    def _wait(self, condition: Any, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not condition(self._read()):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > end:
                raise AssertionError(f"the life beside does not live: {self._read()}\n{self._log.read_text()}")
            time.sleep(0.1)

    def __enter__(self) -> Life:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()
