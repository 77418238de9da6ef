# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup set into a side instance: look at the host and the repository, plan, then do it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import recovery_target, restore_plan
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines, parse_history
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest import restore as planning
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import manifest_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, Run, parse_error
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.whole_set import lacking, read_manifest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._side.beside import others_beside
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value
from ansible_collections.dbre.recovery.plugins.module_utils._side.expected import expected, history_of
from ansible_collections.dbre.recovery.plugins.module_utils._side.locales import check_locales
from ansible_collections.dbre.recovery.plugins.module_utils._side.neighbours import tablespaces_here
from ansible_collections.dbre.recovery.plugins.module_utils._side.shown import side_restore_shown
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_client import check_listen, networks
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import max_wal_bytes
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    NOT_COUNTED,
    TAKEN,
    SideInstance,
    boot_id,
    free_port,
    now,
    running_data_directories,
    system_user,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_ready import (
    is_within,
    make_ready,
    read_control,
)

CONFIG_PATHS = ("/etc/pgbackrest/pgbackrest.conf", "/etc/pgbackrest.conf")
INCLUDE_DIRECTORY = "/etc/pgbackrest/conf.d"
# pgBackRest 2.60: "invalid page checksum(s) found in file /side/data/base/16384/16385 at pages 3-5, 9"
_DAMAGED_FILE = re.compile(r"invalid page checksum\S* found in file (.*?)(?: at pages? ([\d, -]+))?$", re.M)
# Beyond this many directories of 256 WAL files, one recursive listing is quicker than one for each.
MANY_DIRECTORIES = 8


def existing_parent(path: str) -> str:
    """The nearest directory above a path, or itself, that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def read_host_config(config: Optional[str]) -> list[str]:
    """Texts of the host's pgBackRest configuration, the main file first."""
    if config:
        paths = [config]
    else:
        paths = [path for path in CONFIG_PATHS if os.path.exists(path)][:1]
        if os.path.isdir(INCLUDE_DIRECTORY):
            included = sorted(name for name in os.listdir(INCLUDE_DIRECTORY) if name.endswith(".conf"))
            paths += [os.path.join(INCLUDE_DIRECTORY, name) for name in included]
    texts = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                texts.append(file.read())
        except OSError as error:
            raise RecoveryError(
                f"pgBackRest's configuration {path} on {socket.gethostname()} cannot be read: {error.strerror}. Name "
                "the file with config (pgbackrest_config_path) and let the user this runs as read it."
            ) from error
    return texts


@dataclass(frozen=True)
class Asked:
    """The instance at ``path`` that is wanted of a stanza, and what is known of production (``production_*``)."""

    path: str
    stanza: str
    target: Mapping[str, Any]
    incident: str
    config: Optional[str] = None
    executable: str = "pgbackrest"
    repo: Optional[int] = None
    set: Optional[str] = None
    databases: Sequence[str] = ()
    system_identifier: Optional[str] = None
    major_version: Optional[int] = None
    wal_segment_size: Optional[int] = None
    production_databases: Sequence[Mapping[str, Any]] = ()
    production_tablespaces: Sequence[Mapping[str, Any]] = ()
    production_wal: Sequence[Mapping[str, Any]] = ()
    port: int = 0
    process_max: int = 0
    bin_dir: Optional[str] = None
    superuser: Optional[str] = None
    client: Optional[Mapping[str, Any]] = None
    state_path: str = "/var/lib/dbre-recovery"


class SideRestore:
    """One side restore, by a runner."""

    def __init__(self, asked: Asked, run: Run) -> None:
        self.asked = asked
        self.run = run
        self.target = recovery_target(asked.target, replayed=True)
        self.instance = SideInstance(asked.path)
        self.executable = shutil.which(asked.executable) or asked.executable

    def backrest(self, repo: Optional[int] = None) -> PgBackRest:
        """pgBackRest with the host's own configuration."""
        return PgBackRest(
            self.run,
            stanza=self.asked.stanza,
            config=self.asked.config,
            executable=self.executable,
            repo=repo or self.asked.repo,
        )

    # Looking

    def check_path(self, marker: Optional[Mapping[str, Any]]) -> None:
        """Refuse a path that is, holds or lies in anything that is not ours."""
        path, host = self.instance.path, self.instance.host
        foreign = [place for place in running_data_directories() if marker is None or not is_within(place, path)]
        foreign += [
            os.path.realpath(tablespace["location"])
            for tablespace in self.asked.production_tablespaces
            if tablespace.get("location") and os.path.isdir(tablespace["location"])
        ]
        for place in foreign:
            if is_within(path, place) or is_within(place, path):
                raise UnfitHost(
                    f"{path} on {host} overlaps {place}, which a PostgreSQL server there uses. Nothing was changed. "
                    "Choose a path outside of it."
                )
        above = path
        while above != "/":
            if os.path.exists(os.path.join(above, "PG_VERSION")):
                raise UnfitHost(
                    f"{path} on {host} lies in the data directory {above}. Nothing was changed. Choose another path."
                )
            above = os.path.dirname(above)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UnfitHost(f"{path} on {host} is no directory. Choose another path.")
        if marker is None and os.path.isdir(path) and set(os.listdir(path)) - NOT_COUNTED:
            raise UnfitHost(
                f"{path} on {host} is not empty, and what is in it is no side instance of ours. Nothing was changed. "
                "Choose another path, or empty it yourself."
            )
        parent = existing_parent(path)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UnfitHost(
                f"user {system_user()} may not write in {parent} on {host}. Nothing was changed. Make {path} for that "
                "user, or choose another path."
            )

    def check_client(self) -> None:
        """Refuse a client that could not get in once all is restored."""
        client = self.asked.client
        if client:
            networks(client["address"])
            check_listen(client["listen"])

    def require_same_request(self, marker: Mapping[str, Any]) -> None:
        """Refuse to go on with an instance that was made for something else, or is to serve in place of production."""
        if marker["state"] == TAKEN:
            raise RecoveryError(
                f"what was restored to {self.instance.path} on {self.instance.host} takes the place of production. "
                "Nothing was changed. Run the playbook again with the same dr_incident_id, which goes on with that."
            )
        wanted: dict[str, Any] = {
            "incident": self.asked.incident,
            "target": dict(self.target),
            "stanza": self.asked.stanza,
        }
        for name, value in wanted.items():
            # One that kept images of a transaction stands past what was asked for.
            before = marker.get(f"asked_{name}", marker[name])
            if name == "target" and all(
                before[key] == value[key] for key in ("type", "value", "exclusive", "timeline")
            ):
                continue  # the reason and the WAL segment are words beside it
            if before != value:
                raise RecoveryError(
                    f"the side instance at {self.instance.path} on {self.instance.host} was made for {name} "
                    f"{before!r}, not for {value!r}. Nothing was changed. Remove it (postgresql_side_instance with "
                    "state=absent and this path), or choose another path."
                )

    def history(self, archives: Mapping[int, str]) -> Timelines:
        """History of the target's timeline, out of the first repository that has it."""
        timeline = int(self.target["timeline"])
        if timeline == 1:
            return Timelines(timeline)
        failures = []
        for repo, archive in archives.items():
            name = f"archive/{self.asked.stanza}/{archive}/{timeline:08X}.history"
            try:
                return parse_history(self.backrest(repo).run("repo-get", arguments=(name,)), timeline)
            except RecoveryError as error:
                failures.append(error.msg)
        raise RecoveryError(
            f"the history of timeline {timeline} is not in the repository, so the way to the target cannot be known. "
            f"Nothing was changed. {' '.join(failures)}"
        )

    def listed_wal(self, repo: int, archive: str, directories: set[str]) -> set[str]:
        """WAL files the repository has in some directories of an archive."""
        backrest = self.backrest(repo)
        base = f"archive/{self.asked.stanza}/{archive}"
        if len(directories) > MANY_DIRECTORIES:
            return planning.archived_segments(backrest.repo_ls(base, recurse=True))
        found: set[str] = set()
        for directory in sorted(directories):
            found |= planning.archived_segments(backrest.repo_ls(f"{base}/{directory}"))
        return found

    def plan(self, marker: Optional[Mapping[str, Any]], *, may_wait: bool) -> dict[str, Any]:
        """Look and decide; changes nothing. Raises RecoveryError with the reason when it cannot work."""
        if not os.access(self.executable, os.X_OK):
            raise UnfitHost(
                f"there is no program {self.executable!r} on {self.instance.host}. Nothing was changed. Install "
                "pgBackRest there (role dbre.recovery.pgbackrest), or name it with executable (pgbackrest_executable)."
            )
        self.check_path(marker)
        self.check_client()
        wanted = self.asked.databases
        known = self.asked.production_databases
        check_locales(known, {*(wanted or [item["name"] for item in known]), "template1"})
        stanza = self.asked.stanza
        info = self.backrest().info()
        status = info["status"]
        # 2 is a stanza without backups, about which choose_set has the better words.
        if status["code"] not in (0, 2) and not any(r["status"]["code"] == 0 for r in info.get("repo", [])):
            repos = "; ".join(f"repo{r['key']}: {r['status']['message']}" for r in info.get("repo", []))
            raise RecoveryError(
                f"the repository of stanza {stanza!r} cannot be used from {self.instance.host}: {status['message']}"
                f"{f' ({repos})' if repos else ''}. Nothing was changed. See pgbackrest info there, as user "
                f"{system_user()}.",
                status=status,
                repositories=info.get("repo", []),
            )
        system = self.asked.system_identifier
        databases = sorted(info["db"], key=lambda db: int(db["id"]))
        ours = [db for db in databases if system is None or int(db["system-id"]) == int(system)] or databases
        major = planning.check_system(
            ours[-1], None if system is None else int(system), self.asked.major_version, stanza
        )
        keys = {(db.get("repo-key", 1), db["id"]) for db in ours if str(db["version"]) == str(ours[-1]["version"])}
        archives = {
            entry["database"].get("repo-key", 1): entry["id"]
            for entry in info["archive"]
            if (entry["database"].get("repo-key", 1), entry["database"]["id"]) in keys
        }
        newest = {
            entry["database"].get("repo-key", 1): entry.get("max")
            for entry in info["archive"]
            if entry["id"] in archives.values()
        }
        backups = [b for b in info["backup"] if (b["database"].get("repo-key", 1), b["database"]["id"]) in keys]
        bin_dir = find_bin_dir(major, self.asked.bin_dir)
        size = planning.find_segment_size(backups, self.target, self.asked.wal_segment_size)
        history = self.history(archives)
        label = self.asked.set or (marker["set"] if marker else None)
        backup = planning.choose_set(backups, self.target, history, size, label)
        repo = backup["database"].get("repo-key", 1)
        wal = self.plan_wal(backup, history, size, repo, archives[repo], newest[repo], may_wait)
        # pgBackRest 2.33 tells the databases of a set as text only; its manifest tells them everywhere.
        manifest = read_manifest(self.backrest(repo), backup["label"])
        detail = manifest_facts(manifest or "")
        in_set = detail["databases"]
        chosen = planning.choose_databases(
            self.asked.databases,
            in_set,
            self.asked.production_databases,
            not (marker or {}).get("restore_all"),
        )
        without = planning.left_out(in_set, chosen)
        others = planning.other_sets(backups, backup, self.target, history, size)
        self.check_whole(backup, manifest, others, without)
        others_here = [place for place in running_data_directories() if not is_within(place, self.instance.path)]
        # Where production was not asked, what its server on this host has is what it would be harmed in.
        told = self.asked.production_tablespaces or tablespaces_here(int(ours[-1]["system-id"]), others_here)
        tablespaces = planning.check_tablespaces(told, detail["tablespaces"], backup["label"])
        wal["bytes"] = wal["count"] * size
        disk = self.plan_disk(backup, without, wal["bytes"], marker)
        data = planning.restored_bytes(backup["info"]["size"], without, known)
        plan = {
            "expected": expected(history_of(self.asked.state_path, stanza), repo, data, wal["bytes"]),
            "set": planning.set_summary(backup),
            "other_sets": [other["label"] for other in others],
            "target": self.target,
            "timeline": self.target["timeline"],
            "wal": wal,
            "disk": disk,
            "databases": [database["name"] for database in chosen] if without else [],
            "database_oids": [int(database["oid"]) for database in chosen] if without else [],
            "left_out": without,
            "tablespaces": tablespaces,
            "process_max": self.asked.process_max or os.cpu_count() or 1,
            "path": self.instance.path,
            "port": marker["port"] if marker else self.asked.port or free_port(),
            "host": self.instance.host,
            "bin_dir": bin_dir,
            "major_version": major,
            "system_identifier": str(ours[-1]["system-id"]),
            "set_databases": [{"name": item["name"], "oid": int(item["oid"])} for item in in_set],
            "archive": f"archive/{stanza}/{archives[repo]}",
            "beside": others_beside(self.instance),
        }
        return restore_plan({**plan, "shown": side_restore_shown(plan)})

    def check_whole(
        self,
        backup: Mapping[str, Any],
        manifest: Optional[str],
        others: list[Mapping[str, Any]],
        without: list[dict[str, Any]],
    ) -> None:
        """Refuse a set of which the repository has lost a file, and name the newest one that is whole."""
        backrest = self.backrest(_repo_of(backup))
        missing = lacking(backrest, backup["label"], manifest, {item["oid"] for item in without})
        if not missing:
            return

        def is_whole(other: Mapping[str, Any]) -> bool:
            there = self.backrest(_repo_of(other))
            with contextlib.suppress(RecoveryError):
                return not lacking(there, other["label"], read_manifest(there, other["label"]))
            return False

        whole = next((other["label"] for other in others if is_whole(other)), None)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RecoveryError(
            f"backup set {backup['label']} cannot be restored: the repository (repo{_repo_of(backup)}) has lost "
            f"{missing[0]}{more}. Nothing was changed. "
            + (
                f"Set {whole} is whole and leads to the target, too: choose it with set (dr_set={whole})."
                if whole
                else "No other set that leads to the target is whole. Use another repository (dr_repository), or bring "
                "the files back."
            ),
            missing_files=missing,
            whole_set=whole,
        )

    def plan_wal(
        self,
        backup: Mapping[str, Any],
        history: Timelines,
        size: int,
        repo: int,
        archive: str,
        newest: Optional[str],
        may_wait: bool,
    ) -> dict[str, Any]:
        """The WAL part of a plan: every file from the set's first to the target's is in the repository."""
        first = planning.parse_segment_name(backup["archive"]["start"], size)[1]
        timeline = int(self.target["timeline"])
        where = f"repo{repo}, archive {archive}"
        if self.target["type"] == "immediate":
            last = planning.parse_segment_name(backup["archive"]["stop"], size)[1]
        elif segment := self.target.get("segment"):
            last = planning.parse_segment_name(segment, size)[1]
        elif newest is not None and int(newest[:8], 16) == timeline:
            last = planning.parse_segment_name(newest, size)[1]
        else:
            everything = self.backrest(repo).repo_ls(f"archive/{self.asked.stanza}/{archive}", recurse=True)
            on_timeline = [n for n in planning.archived_segments(everything) if int(n[:8], 16) == timeline]
            if not on_timeline:
                raise RecoveryError(f"the repository ({where}) has no WAL of timeline {timeline}. Nothing was changed.")
            last = planning.parse_segment_name(max(on_timeline), size)[1]
        needed = list(planning.needed_segments(first, last, history, size))
        present = self.listed_wal(repo, archive, {name[:16] for name in needed})
        kept = planning.segments_kept(self.asked.production_wal, size)
        return planning.plan_wal(needed, present, newest or "0" * 24, may_wait=may_wait, where=where, kept=kept)

    def plan_disk(
        self,
        backup: Mapping[str, Any],
        without: list[dict[str, Any]],
        wal_bytes: int,
        marker: Optional[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The disk part of a plan; refuses when there is too little."""
        production = self.asked.production_databases
        needed = planning.needed_bytes(backup["info"]["size"], without, production, wal_bytes, max_wal_bytes(wal_bytes))
        stat = os.statvfs(existing_parent(self.instance.path))
        free = stat.f_bavail * stat.f_frsize
        already = disk_usage(self.instance.path) if marker else 0
        planning.check_disk(needed, free + already, self.instance.path, self.instance.host)
        return {"path": self.instance.path, "needed": needed, "free": free}

    # Doing

    def done(self, marker: Optional[Mapping[str, Any]]) -> bool:
        """Whether the restore is done, in this boot: without fsync a crash of the host leaves nothing to rely on."""
        wanted = self.asked.set
        return (
            marker is not None
            and marker["state"] == "restored"
            and marker["boot_id"] == boot_id()
            and wanted in (None, "", marker["set"])
        )

    def look(self) -> tuple[dict[str, Any], bool]:
        """The plan and whether a run would change anything; changes nothing."""
        marker = self.instance.read_marker()
        if marker is not None:
            self.require_same_request(marker)
            if self.done(marker):
                return marker["plan"], False
        return self.plan(marker, may_wait=True), True

    def restore(self) -> tuple[dict[str, Any], bool]:
        """Plan and restore, or find it done; returns (plan, changed)."""
        instance = self.instance
        marker = instance.read_marker()
        if marker is not None:
            self.require_same_request(marker)
            if self.done(marker):
                return marker["plan"], False
        plan = self.plan(marker, may_wait=False)
        made_path = marker["made_path"] if marker else not os.path.isdir(instance.path)
        os.makedirs(instance.path, mode=0o700, exist_ok=True)
        os.chmod(instance.path, 0o700)
        with instance.locked():
            before, marker = marker, instance.read_marker()
            if marker is not None and marker != before:
                # A run before this one went on until it gave us the lock.
                self.require_same_request(marker)
                if self.done(marker):
                    return marker["plan"], False
                plan, made_path = self.plan(marker, may_wait=False), marker["made_path"]
            started = time.monotonic()
            timelines = marker["timelines"] if marker else self.timelines(plan)
            marker = self.new_marker(plan, made_path, restore_all=bool(marker and marker.get("restore_all")))
            marker["timelines"] = timelines
            instance.write_marker(marker)
            instance.end_leftover_pgbackrest()
            instance.stop(marker)
            self.write_config(plan)
            self.run_restore(plan)
            control = read_control(instance, plan["bin_dir"])
            if control_value(control, "Latest checkpoint's full_page_writes") == "off" and plan["databases"]:
                # Without whole pages in WAL it cannot be replayed over the holes of databases that were left out.
                plan.update(databases=[], database_oids=[], left_out=[])
                plan["shown"] = side_restore_shown(plan)
                marker = {**self.new_marker(plan, made_path, restore_all=True), "timelines": timelines}
                instance.write_marker(marker)
                self.run_restore(plan)
                control = read_control(instance, plan["bin_dir"])
            make_ready(instance, marker, plan, control, self.restore_command(plan))
            plan["seconds"] = round(time.monotonic() - started, 1)
            marker.update(plan=plan, state="restored", restored=now(), boot_id=boot_id())
            instance.write_marker(marker)
        return plan, True

    def timelines(self, plan: Mapping[str, Any]) -> list[str]:
        """Timelines in the archive, to compare with when the side instance is removed."""
        return planning.archived_timelines(self.backrest(plan["set"]["repo"]).repo_ls(plan["archive"]))

    def new_marker(self, plan: Mapping[str, Any], made_path: bool, *, restore_all: bool) -> dict[str, Any]:
        """The record of a restore that begins."""
        user = system_user()
        wanted = self.asked.databases[0] if self.asked.databases else None
        return {
            "format": 1,
            "source": "pgbackrest",
            "incident": self.asked.incident,
            "stanza": self.asked.stanza,
            "executable": self.executable,
            "set": plan["set"]["label"],
            "target": self.target,
            "state": "restoring",
            "plan": dict(plan),
            "port": plan["port"],
            "bin_dir": plan["bin_dir"],
            "major_version": plan["major_version"],
            "system_identifier": plan["system_identifier"],
            "superuser": self.asked.superuser or user,
            # postgres may be gone, or be the database that is asked for.
            "control_database": "template1",
            "database": wanted,
            "database_oid": self.production_oid(wanted),
            "made_path": made_path,
            "restore_all": restore_all,
            "boot_id": boot_id(),
            "created": now(),
        }

    def production_oid(self, name: Optional[str]) -> Optional[int]:
        """OID of the database that production has under a name now; None when there is none or it was not told."""
        oids: dict[Optional[str], Any] = {item["name"]: item.get("oid") for item in self.asked.production_databases}
        return int(oids[name]) if name in oids and oids[name] else None

    def write_config(self, plan: Mapping[str, Any]) -> None:
        """Write the side's pgbackrest.conf and its directories."""
        own = {
            "pg1-path": self.instance.data,
            "pg1-socket-path": self.instance.run_dir,
            "pg1-port": str(plan["port"]),
            "spool-path": self.instance.below("spool"),
            "lock-path": self.instance.below("lock"),
            "log-path": self.instance.below("log"),
            "log-level-file": "info",
            "archive-async": "y",
            "archive-get-queue-max": str(256 * planning.MIB),
            "process-max": str(plan["process_max"]),
        }
        self.instance.make_directories("spool", "lock")
        text = planning.side_config(read_host_config(self.asked.config), stanza=self.asked.stanza, own=own)
        write_atomically(self.instance.backrest_config, text)

    def side_command(self, plan: Mapping[str, Any]) -> list[str]:
        """Beginning of every pgBackRest command that works on the side instance."""
        return [
            self.executable,
            f"--config={self.instance.backrest_config}",
            f"--stanza={self.asked.stanza}",
            f"--repo={plan['set']['repo']}",
        ]

    def restore_command(self, plan: Mapping[str, Any]) -> str:
        """restore_command of the side instance; says in the server's log which WAL file it could not find."""
        command = [*self.side_command(plan), "--log-level-console=info", "--log-level-stderr=off"]
        return shlex.join(command).replace("%", "%%") + ' archive-get %f "%p"'

    def run_restore(self, plan: Mapping[str, Any]) -> None:
        """Run pgbackrest restore, saying how far it is; goes on with what a killed one left."""
        data = self.instance.data
        argv = [
            *self.side_command(plan),
            f"--set={plan['set']['label']}",
            "--type=none",
            f"--tablespace-map-all={self.instance.tablespaces}",
            # By OID: a name that is a number would be taken for one.
            *(f"--db-include={oid}" for oid in plan["database_oids"]),
            "--log-level-console=detail",
            "--log-level-stderr=off",
        ]
        known = any(os.path.exists(os.path.join(data, name)) for name in ("PG_VERSION", "backup.manifest"))
        if known:
            # What recovery wrote since is no file of the backup; these would make pgBackRest refuse.
            for name in ("postmaster.pid", "recovery.signal"):
                if os.path.exists(os.path.join(data, name)):
                    os.unlink(os.path.join(data, name))
            argv.append("--delta")
        else:
            for directory in (data, self.instance.tablespaces):
                shutil.rmtree(directory)
                os.makedirs(directory, mode=0o700)
        argv.append("restore")
        size = int(plan["set"]["size"])
        tail: list[str] = []
        damaged: dict[str, str] = {}
        told = done = 0.0
        # A module's run_command would keep its progress from us until the end.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.instance.environment(),
            cwd=self.instance.path,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                tail = [*tail[-40:], line]
                damaged.update(damaged_files(line))
                done = max(done, percent_done(line))
                if time.monotonic() - told >= 1:
                    told = time.monotonic()
                    self.instance.progress("restore", round(size * done), size, "bytes")
        if process.returncode != 0:
            others = plan["other_sets"]
            instead = f"restore another set: set (dr_set={others[0]})" if others else "use another repository (repo)"
            if damaged:
                said = "; ".join(f"{file}{f', block {pages}' if pages else ''}" for file, pages in damaged.items())
                raise RecoveryError(
                    f"backup set {plan['set']['label']} holds pages that fail their checksums, in {said}, "
                    f"and pgBackRest on {self.instance.host} restores no such set. Production was not touched. Run "
                    f"again and {instead}.",
                    damaged_files=damaged,
                )
            _code, text = parse_error("".join(tail))
            raise RecoveryError(
                f"pgBackRest could not restore set {plan['set']['label']} to {self.instance.path} on "
                f"{self.instance.host} (exit code {process.returncode}): {text}. Production was not touched. Remove "
                f"the cause and run again: it goes on with what is there. Or {instead}.",
                rc=process.returncode,
            )
        self.instance.progress("restore", size, size, "bytes")


def _repo_of(backup: Mapping[str, Any]) -> int:
    return int(backup["database"].get("repo-key", 1))


def damaged_files(line: str) -> dict[str, str]:
    """{file: blocks, such as ``3-5, 9``} of which pgBackRest's line says that they fail their checksums.

    Blocks are empty where it does not name them.
    """
    return {match[1]: (match[2] or "").strip() for match in _DAMAGED_FILE.finditer(line)}


def percent_done(line: str) -> float:
    """Part done, 0 to 1, from pgBackRest's line for a restored file: ``restore file ... (88KB, 12.34%) checksum``."""
    begin = line.rfind(", ")
    end = line.find("%)", begin)
    try:
        return float(line[begin + 2 : end]) / 100 if begin >= 0 and end >= 0 else 0.0
    except ValueError:
        return 0.0


def disk_usage(path: str) -> int:
    """Bytes on disk below a path; links are not followed."""
    total = 0
    for directory, _directories, files in os.walk(path):
        for name in files:
            total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total
