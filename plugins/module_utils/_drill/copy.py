# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of production to drill on: its newest backup, restored beside, promoted, with a repository of its own.

It has production's system identifier, so production's repository would take its WAL. That it never gets any is made
sure of thrice: the command line of the server names the copy's own configuration of pgBackRest, which names one
repository below the copy's path; no variable of the environment that could lead pgBackRest elsewhere reaches the
server; and what is in force is read back, as the timelines in production's archive are when the copy is removed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.restore import check_disk
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, Run
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance, now
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery, ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore
from ansible_collections.dbre.recovery.plugins.module_utils._verification.clean_up import clean_up, free_bytes
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import LATEST, restore_point

STANZA = "drill"
# Where the standby of a copy lies, below it.
STANDBY = "standby"
# The copy, what is restored beside it, and its backup: as much as three times the copy.
TIMES_THE_ROOM = 3
# What led the copy to its target, and would lead it on.
_OF_RECOVERY = ("restore_command", "recovery_target")


class CopyInstance(SideInstance):
    """A side instance that archives into a repository of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.own_config = self.below("own.conf")
        self.repository = self.below("repository")

    def environment(self) -> dict[str, str]:
        # pgBackRest believes its environment before its configuration.
        return {name: value for name, value in super().environment().items() if not name.startswith("PGBACKREST")}

    def pgbackrest(self, executable: str, *words: str) -> list[str]:
        """A command of pgBackRest that knows nothing but the copy and its repository."""
        return [executable, f"--config={self.own_config}", f"--stanza={STANZA}", *words]

    def isolation(self, marker: Mapping[str, Any]) -> dict[str, str]:
        push = shlex.join(self.pgbackrest(marker["executable"])).replace("%", "%%") + ' archive-push "%p"'
        return {**super().isolation(marker), "archive_mode": "on", "archive_command": push, "restore_command": ""}

    def own_text(self, marker: Mapping[str, Any]) -> str:
        """pgbackrest.conf of the copy: one repository, below its path."""
        options = {
            "repo1-path": self.repository,
            "repo1-retention-full": "1",
            "compress-level": "1",
            "start-fast": "y",
            "log-path": self.below("log"),
            "lock-path": self.below("own-lock"),
            "spool-path": self.below("own-spool"),
            "log-level-console": "warn",
            "process-max": str(marker["plan"]["process_max"]),
        }
        own = {
            "pg1-path": self.data,
            "pg1-port": str(marker["port"]),
            "pg1-socket-path": self.run_dir,
            "pg1-user": marker["superuser"],
            "pg1-database": marker["control_database"],
        }
        sections = (("global", options), (STANZA, own))
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in section.items()) for name, section in sections
        )


@dataclass(frozen=True)
class Wanted:
    """The copy that a drill wants; ``drill`` is its id, which alone may take away what is at ``path``."""

    path: str
    stanza: str
    drill: str
    config: Optional[str] = None
    executable: str = "pgbackrest"
    repo: Optional[int] = None
    superuser: Optional[str] = None
    bin_dir: Optional[str] = None
    state_path: str = "/var/lib/dbre-recovery"
    timeout: float = 14400


class Copy:
    """Makes the copy of one drill."""

    def __init__(self, wanted: Wanted, run: Run) -> None:
        self.wanted = wanted
        self.run = run
        self.instance = CopyInstance(wanted.path)

    def side_restore(self) -> SideRestore:
        wanted = self.wanted
        production = PgBackRest(
            self.run, stanza=wanted.stanza, config=wanted.config, executable=wanted.executable, repo=wanted.repo
        )
        return SideRestore(
            Asked(
                path=self.instance.path,
                stanza=wanted.stanza,
                target=restore_point(stanza_facts(production.info()), LATEST, ""),
                incident=wanted.drill,
                config=wanted.config,
                executable=wanted.executable,
                repo=wanted.repo,
                state_path=wanted.state_path,
                superuser=wanted.superuser,
                bin_dir=wanted.bin_dir,
            ),
            self.run,
        )

    def plan(self) -> dict[str, Any]:
        """Look, and refuse what cannot work; changes nothing."""
        self.refuse_others()
        plan = self.side_restore().plan(None, may_wait=False)
        needed = TIMES_THE_ROOM * int(plan["disk"]["needed"])
        check_disk(needed, free_bytes(self.instance.path), self.instance.path, self.instance.host)
        return plan

    def refuse_others(self) -> None:
        """Refuse a place where another drill has its copy, or that is not ours."""
        marker = self.instance.read_marker()
        if marker is not None and marker.get("incident") != self.wanted.drill:
            raise RecoveryError(
                f"drill {marker.get('incident')} has its copy at {self.instance.path} on {self.instance.host}, since "
                f"{marker.get('created')}. Nothing was touched. If it still runs, wait for its end. If it was killed "
                f"or kept its copy, remove that: dr-abandon with -e dr_incident_id={marker.get('incident')}.",
                drill=marker.get("incident"),
            )

    def make(self) -> dict[str, Any]:
        """Restore, promote, and make it stand on its own; what an earlier try of this drill left is removed first."""
        self.refuse_others()
        remove(self.instance.path)
        self.plan()
        self.side_restore().restore()
        # Until here it is a side instance as any other: it archives nothing, and may read production's repository.
        side = SideInstance(self.instance.path)
        promoted = ensure_state(side, "promoted", timeout=self.wanted.timeout)
        side.stop(side.marker())
        marker = self.instance.marker()
        marker["settings"] = {
            **{name: value for name, value in marker["settings"].items() if not name.startswith(_OF_RECOVERY)},
            "full_page_writes": "on",
            "autovacuum": "on",
            "archive_timeout": "60",
        }
        self.instance.make_directories("repository", "own-lock", "own-spool", "side")
        write_atomically(self.instance.own_config, self.instance.own_text(marker))
        self.instance.write_settings(marker)
        marker["drill"] = {"began": now(), "reached": promoted["instance"]["reached"]}
        self.instance.write_marker(marker)
        self.instance.start(marker)
        recovery = SideRecovery(self.instance, self.wanted.timeout)
        recovery.wait_open()
        isolation = read_back(recovery)
        self.own_backup(marker)
        return self.described(marker, [*isolation, self.own_files(marker)])

    def own_backup(self, marker: Mapping[str, Any]) -> None:
        """Its stanza, its history and its first backup, in its own repository only."""
        self.call(marker, "stanza-create")
        # Nobody archived the histories that lead to its timeline.
        for history in sorted(glob.glob(os.path.join(glob.escape(self.instance.data), "pg_wal", "*.history"))):
            self.call(marker, "archive-push", history)
        self.instance.progress("the first backup of the copy", 0, 1, "")
        self.call(marker, "backup", "--type=full")

    def own_files(self, marker: Mapping[str, Any]) -> dict[str, Any]:
        """Where what the copy archived and backed up is; RecoveryError, and it is stopped, if not below its path."""
        backups = glob.glob(
            os.path.join(glob.escape(self.instance.repository), "backup", STANZA, "*", "backup.manifest")
        )
        wal = glob.glob(os.path.join(glob.escape(self.instance.repository), "archive", STANZA, "*", "*", "*"))
        if not backups or not wal:
            self.instance.stop(marker)
            raise RecoveryError(
                f"the copy at {self.instance.path} on {self.instance.host} has no backup or no WAL in its own "
                "repository, and nobody knows where they went. It was stopped, and no damage was done anywhere. Look "
                "into the configuration of pgBackRest there."
            )
        return {"setting": "its own backup and WAL", "value": self.instance.repository, "ok": True}

    def call(self, marker: Mapping[str, Any], *words: str) -> None:
        argv = self.instance.pgbackrest(marker["executable"], *words)
        done = self.instance.call(argv, timeout=self.wanted.timeout)
        if done.returncode != 0:
            raise RecoveryError(
                f"the copy at {self.instance.path} on {self.instance.host} got no repository of its own: "
                f"{shlex.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-1000:]}"
            )

    def described(self, marker: Mapping[str, Any], isolation: list[dict[str, Any]]) -> dict[str, Any]:
        """What leads to the copy, and what proves that nothing leads out of it."""
        chosen = marker["plan"]["set"]
        return {
            "path": self.instance.path,
            "port": marker["port"],
            "socket": self.instance.run_dir,
            "data_directory": self.instance.data,
            "superuser": marker["superuser"],
            "bin_dir": marker["bin_dir"],
            "major_version": marker["major_version"],
            "stanza": STANZA,
            "config": self.instance.own_config,
            "executable": marker["executable"],
            "repository": self.instance.repository,
            "side_path": self.instance.below("side"),
            "evidence_path": self.instance.below("evidence"),
            "set": chosen["label"],
            "repo": chosen["repo"],
            "reached": marker["drill"]["reached"],
            "isolation": isolation,
        }


def read_back(recovery: SideRecovery, more: Optional[Mapping[str, str]] = None) -> list[dict[str, Any]]:
    """What is in force of the settings that isolate a server, and of ``more``.

    RecoveryError, and it is stopped, where one is not.
    """
    instance = recovery.instance
    wanted = {**instance.isolation(recovery.marker), "data_directory": instance.data, **(more or {})}
    wanted["unix_socket_directories"] = instance.run_dir
    found = dict(
        recovery.rows("SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", (list(wanted),))
    )
    read = [
        {"setting": name, "value": found.get(name), "ok": found.get(name) == value}
        for name, value in sorted(wanted.items())
    ]
    wrong = [f"{item['setting']} is {item['value']!r}" for item in read if not item["ok"]]
    if wrong:
        instance.stop(recovery.marker)
        raise RecoveryError(
            f"the copy at {instance.path} on {instance.host} is not isolated: {', '.join(wrong)}. It was "
            "stopped, and no damage was done anywhere."
        )
    return read


def remove(path: str, before: Optional[int] = None) -> dict[str, Any]:
    """Remove a copy with all that was made below it, and prove that it is gone; see clean_up."""
    instance = CopyInstance(path)
    if instance.read_marker() is not None:
        inside = glob.escape(instance.path)
        for inner in sorted([*glob.glob(os.path.join(inside, "side", "*")), *glob.glob(os.path.join(inside, STANDBY))]):
            with contextlib.suppress(RecoveryError):
                side = SideInstance(inner)
                if side.read_marker() is not None:
                    ensure_state(side, "absent")
    return clean_up(instance.path, before)
