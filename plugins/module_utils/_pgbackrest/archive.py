# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stanza as the archive that WAL is searched in."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Backup
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import repository_message
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, parse_error

NOT_FOUND = 1  # exit code of archive-get when the archive does not have the file
PATIENCE = 15  # seconds to wait for a repository


class StanzaArchive:
    """The WAL of a stanza, read by as many processes at a time as told; see ``_core.archive``."""

    show_command = "pgbackrest info"
    check_command = "pgbackrest check"

    def __init__(
        self,
        stanza: str,
        *,
        config: Optional[str] = None,
        executable: str = "pgbackrest",
        repo: Optional[int] = None,
        parallel: int = 0,
    ) -> None:
        """``parallel`` is the number of processes; 0 is one a core."""
        self._pgbackrest = PgBackRest(run, stanza=stanza, config=config, executable=executable, repo=repo)
        # What is pushed goes to every repository.
        self._pusher = PgBackRest(run, stanza=stanza, config=config, executable=executable)
        self._parallel = parallel or os.cpu_count() or 1
        self._info: dict[str, Any] = {}
        self.name = f"stanza '{self._pgbackrest.stanza}'"
        self.chosen = bool(repo)

    def get(self, name: str, path: str) -> bool:
        """Fetch a file of the archive to ``path``; False when the archive does not have it."""
        # Never asynchronously: that would fill and empty the spool of production's own restore_command.
        argv = [*self._pgbackrest.command("archive-get", "--no-archive-async"), name, path]
        rc, stdout, stderr = run(argv)
        if rc == NOT_FOUND:
            return False
        if rc != 0:
            raise RecoveryError(
                f"cannot read WAL file {name} from the archive of {self.name} on "
                f"{socket.gethostname()}: {parse_error(stderr, stdout)[1]}"
            )
        return True

    def get_all(self, files: Mapping[str, str]) -> list[str]:
        """Fetch {name: path}, several at a time; the names that the archive does not have."""
        with ThreadPoolExecutor(self._parallel) as pool:
            return [name for name, got in zip(files, pool.map(self.get, files, files.values())) if not got]

    def push(self, path: str) -> None:
        """Archive a file of pg_wal again."""
        # Asynchronously would mean what is ready, and this is not.
        self._pusher.run("archive-push", "--no-archive-async", arguments=(path,))

    def push_command(self, path: str) -> str:
        """The command that does the same, for people."""
        return f"pgbackrest --stanza={self._pgbackrest.stanza} archive-push {path}"

    def settle(self) -> dict[str, Any]:
        """Use one repository alone when others cannot be reached: ``{repo, lost: [{repo, message}]}``."""
        self._info, lost = self._pgbackrest.settle(PATIENCE)
        messages = [
            {"repo": repo["key"], "message": repository_message(repo["status"].get("message"))} for repo in lost
        ]
        return {"repo": self._pgbackrest.repo, "lost": messages}

    def oldest_backup(self, system_identifier: str, segment_size: int, timelines: Timelines) -> Backup:
        """Oldest backup, once settled, from which this server's WAL leads to its present.

        Raises RecoveryError with pgBackRest's own word where the repository has none.
        """
        return backups_of(self._info, system_identifier, segment_size, timelines)[0]

    def newest_backup(self, system_identifier: str, segment_size: int, timelines: Timelines) -> Backup:
        """The newest of them, in the same way."""
        return backups_of(self._info, system_identifier, segment_size, timelines)[-1]


def backups_of(
    info: Mapping[str, Any], system_identifier: str, segment_size: int, timelines: Timelines
) -> list[Backup]:
    """Backups in pgBackRest's info of a stanza from which this server's WAL leads to its present, the oldest first.

    Raises RecoveryError with pgBackRest's own word where there is none.
    """
    of_server = {
        (entry.get("repo-key", 1), entry["id"])
        for entry in info.get("db", [])
        if str(entry["system-id"]) == system_identifier
    }
    found = []
    for backup in info.get("backup", []):
        # That of a stopped server (--no-online) says nothing of WAL.
        if not (backup.get("archive") or {}).get("start"):
            continue
        timeline, segment = parse_segment_name(backup["archive"]["start"], segment_size)
        key = (backup["database"].get("repo-key", 1), backup["database"]["id"])
        start = segment * segment_size
        if key in of_server and timeline in (timelines.at(start), timelines.of_segment(segment, segment_size)):
            found.append(backup)
    if not found:
        status = info.get("status", {})
        repositories = "; ".join(
            f"repository {repo.get('key')}: {repo['status']['message']}" for repo in info.get("repo", [])
        )
        raise RecoveryError(
            f"stanza '{info.get('name')}' has no backup, made while it ran, of this server (system identifier "
            f"{system_identifier}) in the repository, seen from {socket.gethostname()}. pgBackRest says: "
            f"{status.get('message')} (code {status.get('code')}); {repositories}. Nothing was changed. See that the "
            "repository can be reached and that the stanza is right (pgbackrest_stanza): pgbackrest info"
        )
    return [
        Backup(
            backup["label"],
            backup["archive"]["start"],
            int(backup["timestamp"]["stop"]) * 1_000_000,
            (backup.get("lsn") or {}).get("stop"),
        )
        for backup in sorted(found, key=lambda backup: int(backup["timestamp"]["start"]))
    ]
