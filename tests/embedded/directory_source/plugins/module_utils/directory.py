# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory with a base backup and WAL: as an archive to search in, and as what a side instance is made of."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Backup
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    SideInstance,
    boot_id,
    free_port,
    now,
    system_user,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_ready import make_ready, read_control

LABEL = re.compile(r"START WAL LOCATION: (\S+) \(file (\w{24})\)")


class Directory:
    """Implements ``_core.archive.Archive``."""

    chosen = True
    check_command = "ls"

    def __init__(self, path: str) -> None:
        self.name = path
        self.base, self.wal = os.path.join(path, "base"), os.path.join(path, "wal")
        self.show_command = f"ls {path}"

    def get(self, name: str, path: str) -> bool:
        try:
            shutil.copyfile(os.path.join(self.wal, name), path)
        except FileNotFoundError:
            return False
        return True

    def get_all(self, files: Mapping[str, str]) -> list[str]:
        return [name for name, path in files.items() if not self.get(name, path)]

    def push(self, path: str) -> None:
        shutil.copy(path, self.wal)

    def push_command(self, path: str) -> str:
        return shlex.join(["cp", path, self.wal])

    def settle(self) -> dict[str, Any]:
        return {"repo": None, "lost": []}

    def start(self) -> tuple[str, str]:
        """LSN and WAL file that the base backup begins at."""
        try:
            with open(os.path.join(self.base, "backup_label"), encoding="utf-8") as file:
                found = LABEL.search(file.read())
        except FileNotFoundError:
            found = None
        if not found:
            raise RecoveryError(f"{self.base} is no base backup. Nothing was changed. Make one with pg_basebackup.")
        return found[1], found[2]

    def oldest_backup(self, system_identifier: str, segment_size: int, timelines: Timelines) -> Backup:
        seconds = os.path.getmtime(os.path.join(self.base, "backup_manifest"))
        return Backup("base", self.start()[1], int(seconds * 1_000_000), None)

    newest_backup = oldest_backup


def plan(directory: Directory, instance: SideInstance, order: Mapping[str, Any]) -> dict[str, Any]:
    """What is restored, from where, to where; RecoveryError where it cannot be."""
    lsn, first = directory.start()
    server = order["server"]
    return {
        "set": {"label": "base", "start_lsn": lsn},
        "wal": {"first": first, "last": order["target"]["segment"], "count": 1, "bytes": server["wal_segment_size"]},
        "left_out": [],
        "set_databases": [],
        "system_identifier": str(server["system_identifier"]),
        "major_version": server["major"],
        "path": instance.path,
        "host": instance.host,
        "port": free_port(),
        "shown": [{"label": "Base backup", "lines": [f"{directory.base}, from LSN {lsn} on"]}],
    }


def restore(directory: Directory, instance: SideInstance, order: Mapping[str, Any]) -> bool:
    """Copy the base backup into a side instance that is ready to replay; False when an earlier run did."""
    marker = instance.read_marker()
    if marker and marker["state"] == "restored" and marker["boot_id"] == boot_id():
        return False
    planned = plan(directory, instance, order)
    os.makedirs(instance.path, mode=0o700, exist_ok=True)
    marker = {
        "source": "directory",
        "incident": order["incident"],
        "target": {**order["target"], "timeline": int(order["target"]["timeline"])},
        "state": "restoring",
        "plan": planned,
        "port": planned["port"],
        "bin_dir": find_bin_dir(planned["major_version"], order["bin_dir"]),
        "major_version": planned["major_version"],
        "system_identifier": planned["system_identifier"],
        "superuser": order["server"].get("superuser") or system_user(),
        "control_database": "template1",
        "database": order["database"],
        "made_path": True,
        "boot_id": boot_id(),
        "created": now(),
    }
    instance.write_marker(marker)
    instance.stop(marker)
    shutil.rmtree(instance.data, ignore_errors=True)
    shutil.copytree(directory.base, instance.data)
    instance.make_directories()
    command = f'cp {shlex.quote(directory.wal)}/%f "%p"'
    make_ready(instance, marker, planned, read_control(instance, marker["bin_dir"]), command)
    marker.update(state="restored", restored=now())
    instance.write_marker(marker)
    return True
