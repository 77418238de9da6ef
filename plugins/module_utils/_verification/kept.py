# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a damage, kept on the server's host before anything moves, with the hash of each file.

It may hold what users wrote (the server's log, damaged pages), so it stays there, readable by the server's user alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text, masked
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

Run = Callable[[list[str]], tuple[int, str, str]]
MANIFEST = "SHA256SUMS"
LOG_TAIL = 1024 * 1024  # bytes
WAL_TAIL = 4 * 1024 * 1024  # bytes of WAL whose records are told
WAL_LINES = 20000
PAGES = 1000
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

POSITION = """
SELECT pg_catalog.now()::text AS time, pg_catalog.pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_flush_lsn() END::text AS lsn,
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())::int AS timeline,
       current_setting('data_directory') AS data, pg_catalog.pg_postmaster_start_time()::text AS started,
       current_setting('block_size')::int AS block_size,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'segment_size') AS segment_blocks,
       pg_catalog.pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_size,
       pg_catalog.pg_current_logfile() AS logfile
"""
SETTINGS = """
SELECT name, setting, unit, source, sourcefile, pending_restart FROM pg_catalog.pg_settings ORDER BY 1
"""
# Those of tables and indexes only once, with the system's own among them.
VIEWS = """
SELECT c.relname AS name FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'v'
  AND (c.relname LIKE 'pg\\_stat\\_%' OR c.relname LIKE 'pg\\_statio\\_all%' OR c.relname = 'pg_replication_slots')
  AND c.relname !~ '^pg_stat_(sys|user|xact)_' ORDER BY 1
"""


class Evidence:
    """What is kept of one incident on one server."""

    def __init__(self, folder: str, incident: str) -> None:
        """``folder`` holds a directory for each incident. Raises RecoveryError for a name that is none."""
        if not _IDENTIFIER.fullmatch(incident):
            raise RecoveryError(f"{incident!r} cannot name a directory: use letters, digits, dots and dashes.")
        self.path = Path(folder) / incident
        self.omitted: list[dict[str, str]] = []

    def known(self) -> Optional[list[dict[str, Any]]]:
        """The files that were kept; None where nothing was. Raises RecoveryError where one is not as it was kept."""
        manifest = self.path / MANIFEST
        if not manifest.exists():
            return None
        found = []
        for line in manifest.read_text().splitlines():
            digest, name = line.split("  ", 1)
            file = self.path / name
            if not file.is_file() or _digest(file) != digest:
                raise RecoveryError(
                    f"{file} on {host_name()} is not what was kept as evidence (SHA-256 {digest}). Nothing was "
                    f"touched. Move {self.path} aside and run again to keep what is there now."
                )
            found.append({"name": name, "size": file.stat().st_size, "sha256": digest})
        return found

    def keep(self, session: Any, bin_dir: str, run: Run, damages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write everything, the list of hashes last; what a killed run left is written anew. Returns the files."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        position = rows(session, POSITION)[0]
        names = ["position.json", "settings.json", "statistics.json"]
        self._write("position.json", _json(position))
        self._write("settings.json", _json(masked(rows(session, SETTINGS))))
        self._write("statistics.json", _json(masked(self._statistics(session))))
        session.rollback()
        names += self._program("controldata.txt", [f"{bin_dir}/pg_controldata", "-D", position["data"]], run)
        names += self._wal(position, bin_dir, run)
        names += self._log(position)
        names += self._pages(position, damages)
        found = [
            {"name": name, "size": (self.path / name).stat().st_size, "sha256": _digest(self.path / name)}
            for name in names
        ]
        self._write(MANIFEST, "".join(f"{one['sha256']}  {one['name']}\n" for one in found))
        sync_directory(str(self.path))
        return found

    def digest(self) -> str:
        """SHA-256 of the list of hashes: who has this can tell whether anything was changed."""
        return _digest(self.path / MANIFEST)

    def _write(self, name: str, content: str | bytes) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())

    def _statistics(self, session: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for view in rows(session, VIEWS):
            name = view["name"]
            try:
                session.commit()
                query = f"SELECT coalesce(json_agg(row_to_json(v)), '[]')::text FROM pg_catalog.{quote_ident(name)} v"
                found[name] = json.loads(value(session, query))
            except Exception as error:
                if not hasattr(error, "pgcode") or session.closed:
                    raise
                session.rollback()
                self.omitted.append({"what": name, "why": str(error).strip().splitlines()[0]})
        return found

    def _program(self, name: str, command: list[str], run: Run, lines: Optional[int] = None) -> list[str]:
        code, out, error = run(command)
        if code != 0 and not out:
            self.omitted.append({"what": name, "why": mask_text(error.strip()[:400])})
            return []
        told = out.splitlines(keepends=True)
        self._write(name, "".join(told[-lines:] if lines else told) + (error if code else ""))
        return [name]

    def _wal(self, position: Mapping[str, Any], bin_dir: str, run: Run) -> list[str]:
        high, low = (int(part, 16) for part in position["lsn"].split("/"))
        end = (high << 32) + low
        listing = sorted(Path(position["data"], "pg_wal").glob("[0-9A-F]" * 24))
        files: list[dict[str, Any]] = [
            {"name": file.name, "size": stat.st_size, "changed": stat.st_mtime} for file, stat in _stats(listing)
        ]
        self._write("wal_files.json", _json(files))
        size = position["wal_segment_size"]
        own = [one["name"] for one in files if int(one["name"][:8], 16) == position["timeline"]]
        oldest = min((int(name[8:16], 16) * (1 << 32) + int(name[16:], 16) * size for name in own), default=end)
        # From the beginning of a segment: within one there may be nothing more, where WAL was switched.
        begin = max((end - WAL_TAIL) // size * size, oldest)
        command = [f"{bin_dir}/pg_waldump", f"--path={position['data']}/pg_wal", f"--timeline={position['timeline']}"]
        command += [f"--start={begin >> 32:X}/{begin & 0xFFFFFFFF:X}", f"--end={position['lsn']}"]
        return ["wal_files.json", *self._program("wal.txt", command, run, WAL_LINES)]

    def _log(self, position: Mapping[str, Any]) -> list[str]:
        path = log_file(position["data"], position["logfile"])
        if path is None:
            why = "it goes to no file that is known here: keep what journalctl, or your log server, has"
            self.omitted.append({"what": "the server's log", "why": why})
            return []
        try:
            with open(path, "rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - LOG_TAIL, 0))
                text = file.read().decode(errors="replace")
        except OSError as error:
            self.omitted.append({"what": f"the server's log {path}", "why": str(error.strerror)})
            return []
        self._write("log.txt", mask_text(text))
        return ["log.txt"]

    def _pages(self, position: Mapping[str, Any], damages: Sequence[Mapping[str, Any]]) -> list[str]:
        names: list[str] = []
        wanted = [(one["path"], block) for one in damages for block in one["blocks"]]
        if len(wanted) > PAGES:
            self.omitted.append({"what": "damaged pages", "why": f"{len(wanted) - PAGES} more than are kept"})
        for path, block in wanted[:PAGES]:
            size, segment = position["block_size"], block // position["segment_blocks"]
            file = Path(position["data"], f"{path}.{segment}" if segment else path)
            try:
                with file.open("rb") as opened:
                    page = os.pread(opened.fileno(), size, block % position["segment_blocks"] * size)
            except OSError as error:
                self.omitted.append({"what": f"block {block} of {path}", "why": str(error.strerror)})
                continue
            name = f"page_{path.replace('/', '_')}_{block}"
            self._write(name, page)
            names.append(name)
        return names


def log_file(data: str, current: Optional[str]) -> Optional[str]:
    """Where the server's log goes: what the collector says, or the file that is its standard error."""
    if current:
        return os.path.join(data, current)
    try:
        pid = int(Path(data, "postmaster.pid").read_text().splitlines()[0])
        target = os.readlink(f"/proc/{pid}/fd/2")
    except (OSError, ValueError, IndexError):
        return None
    return target if os.path.isfile(target) else None


def _stats(files: Sequence[Path]) -> list[tuple[Path, os.stat_result]]:
    found = []
    for file in files:
        try:
            found.append((file, file.stat()))
        except FileNotFoundError:  # removed meanwhile
            continue
    return found


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, default=str) + "\n"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
