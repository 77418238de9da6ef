# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways to bring the table back. Each takes the production with the table gone and leaves it with the table back.

The runbooks are typed here without a pause, and are told the moment of the drop; the playbook has to find it.
Their clean-up is not counted, and neither is any check of theirs: a runbook ends when ``pg_restore`` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dataset import Dropped
from production import STANZA, Production, free_port

DATABASE, TABLE = "shop", "public.orders"
LONGEST_REPLAY = 3600  # seconds


class Phases:
    """Seconds by phase, in the order they came."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


class Side:
    """A second server for a runbook, restored from production's repository into ``side``."""

    def __init__(self, production: Production) -> None:
        self.production = production
        self.path = production.folder / "side"
        self.data = self.path / "data"
        self.port = free_port()
        production.run("mkdir", "-p", "-m", "0700", self.path, self.data, production.folder / "dump")

    def start(self, **settings: str) -> None:
        """Start it; archiving off, which even the usual runbook has to do lest it writes into production's archive."""
        options = {
            "archive_mode": "off",
            "port": str(self.port),
            "unix_socket_directories": str(self.path),
            **settings,
        }
        self.production.run(
            self.production.program("pg_ctl"), "start", "-w", "-t", LONGEST_REPLAY, "-D", self.data,
            "-l", self.path / "postgresql.log", "-o", " ".join(f"-c {name}={value}" for name, value in options.items()),
        )  # fmt: skip

    def wait_until_promoted(self) -> None:
        client = [
            self.production.program("psql"),
            "-XAt",
            "-h",
            self.path,
            "-p",
            self.port,
            "-c",
            "SELECT pg_is_in_recovery()",
        ]
        for _look in range(LONGEST_REPLAY * 5):
            if self.production.run(*client, "postgres", check=False).strip() == "f":
                return
            time.sleep(0.2)
        raise TimeoutError("the side instance did not end its recovery")

    def stop(self) -> None:
        self.production.run(self.production.program("pg_ctl"), "stop", "-w", "-m", "immediate", "-D", self.data)
        self.production.run("rm", "-rf", self.path, self.production.folder / "dump")


def usual_runbook(production: Production, dropped: Dropped) -> dict[str, float]:
    """Every tool with its default settings."""
    side, phases = Side(production), Phases()
    dump = production.folder / "dump" / "orders.dump"
    with phases.phase("restore"):
        production.pgbackrest(
            "restore", f"--pg1-path={side.data}", "--type=time", f"--target={dropped.before}", "--target-action=promote"
        )
    with phases.phase("replay"):
        side.start()
        side.wait_until_promoted()
    with phases.phase("dump"):
        production.run(
            production.program("pg_dump"), "-h", side.path, "-p", side.port, "-Fc", "-t", TABLE, "-f", dump, DATABASE
        )
    with phases.phase("load"):
        production.run(
            production.program("pg_restore"), "-h", production.socket_dir, "-p", production.port, "-d", DATABASE, dump
        )
    side.stop()
    return phases.seconds


def expert_runbook(production: Production, dropped: Dropped) -> dict[str, float]:
    """All cores, one database, WAL fetched ahead, a side instance tuned for recovery, parallel load with memory."""
    side, phases = Side(production), Phases()
    cores = os.cpu_count() or 1
    dump = production.folder / "dump" / "orders"
    config = side.path / "pgbackrest.conf"
    with phases.phase("restore"):
        production.run("mkdir", side.path / "spool", side.path / "lock")
        config.write_text(expert_config(production, side, cores))
        production.run(
            "pgbackrest", f"--config={config}", f"--stanza={STANZA}", f"--db-include={DATABASE}", "--type=time",
            f"--target={dropped.before}", "--target-action=promote", "--archive-mode=off", "restore",
        )  # fmt: skip
    with phases.phase("replay"):
        side.start(
            fsync="off", full_page_writes="off", autovacuum="off", shared_buffers="1GB", max_wal_size="64GB",
            checkpoint_timeout="1d",
        )  # fmt: skip
        side.wait_until_promoted()
    with phases.phase("dump"):
        production.run(
            production.program("pg_dump"), "-h", side.path, "-p", side.port, "-Fd", "-Z0", "-j", cores, "-t", TABLE,
            "-f", dump, DATABASE,
        )  # fmt: skip
    with phases.phase("load"):
        production.run(
            production.program("pg_restore"), "-h", production.socket_dir, "-p", production.port, "-j", cores,
            "-d", DATABASE, dump,
            env={"PGOPTIONS": f"-c maintenance_work_mem=1GB -c max_parallel_maintenance_workers={cores}"},
        )  # fmt: skip
    side.stop()
    return phases.seconds


def expert_config(production: Production, side: Side, cores: int) -> str:
    return (
        f"[global]\nrepo1-path={production.repository}\nlog-path={side.path}\nlock-path={side.path / 'lock'}\n"
        f"spool-path={side.path / 'spool'}\narchive-async=y\narchive-get-queue-max=1GB\nprocess-max={cores}\n"
        f"[{STANZA}]\npg1-path={side.data}\npg1-port={side.port}\npg1-socket-path={side.path}\n"
    )
