# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How logical backups lie on disk, what is known of each, and which may go.

Below a base directory each set (``shop``, ``globals``) has a folder, and in it each dump a folder named by the UTC time
it was begun. A dump's folder holds the dump, ``dump.json`` with all that is known of it, and ``SHA256SUMS``, which
``sha256sum -c`` reads. A folder whose name begins with a dot is being written. ``catalogue.json`` in the base directory
is made anew from the ``dump.json`` files at each change, so it cannot disagree with what is there.

This file and what it imports need the standard library only: it also runs on hosts as the program of the timers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically

CATALOGUE = "catalogue.json"
FACTS = "dump.json"
SUMS = "SHA256SUMS"
RESTORED = "restored.json"
PARTIAL = re.compile(r"\.\d{8}T\d{6}Z\.partial")
DUMP_ID = re.compile(r"\d{8}T\d{6}Z")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Longest wait for another dump of the same database, in seconds.
LOCK_WAIT = 3600
CHUNK = 1024 * 1024


def parse_time(text: str) -> datetime:
    """A moment out of ``2026-11-25T02:15:00+00:00``."""
    return datetime.fromisoformat(text)


def format_time(moment: datetime) -> str:
    """``2026-11-25T02:15:00+00:00``."""
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")


def dump_id(moment: datetime) -> str:
    """Name of the folder of a dump begun at ``moment``; names sort as the dumps were begun."""
    return moment.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def check_name(name: str) -> str:
    """``name`` of a set, refused where it could not be a folder's and a systemd unit's."""
    if not NAME.fullmatch(name):
        raise RecoveryError(
            f"{name!r} cannot be the name of a set of dumps: it becomes a folder's name, so it has letters without "
            "accents, digits, '_', '-' and '.', and does not begin with '.' or '-'. Nothing was done. "
            "Give the set a name of its own with 'name'; the database keeps its name."
        )
    return name


def read_dumps(base: str, name: Optional[str] = None) -> list[dict[str, Any]]:
    """What is known of every complete dump below ``base`` (of one set with ``name``), the oldest first.

    Raises RecoveryError for a ``dump.json`` that cannot be read.
    """
    dumps: list[dict[str, Any]] = []
    names = [name] if name is not None else _folders(base, NAME)
    for set_name in names:
        for folder in _folders(os.path.join(base, set_name), DUMP_ID):
            path = os.path.join(base, set_name, folder)
            if os.path.exists(os.path.join(path, FACTS)):
                dumps.append(read_facts(path))
    return sorted(dumps, key=lambda dump: (dump["id"], dump["name"]))


def _folders(path: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(path) as items:
            return sorted(item.name for item in items if pattern.fullmatch(item.name) and item.is_dir())
    except FileNotFoundError:
        return []


def read_facts(folder: str) -> dict[str, Any]:
    """What is known of the dump in ``folder``, with ``path``, the folder it is in now."""
    file = os.path.join(folder, FACTS)
    try:
        with open(file, encoding="utf-8") as stream:
            facts = dict(json.load(stream))
    except FileNotFoundError:
        raise RecoveryError(
            f"{folder} on {socket.gethostname()} holds no complete dump: there is no {FACTS} in it. Nothing was "
            f"changed. Name the folder of one dump; {CATALOGUE} in the base directory lists them."
        ) from None
    except (OSError, ValueError) as error:
        raise RecoveryError(
            f"{file} on {socket.gethostname()} cannot be read: {error}. Nothing was changed. "
            "Move this dump's folder out of the way, or mend the file."
        ) from error
    return {**facts, "path": folder}


def is_whole(dump: Mapping[str, Any]) -> bool:
    """Whether all files of a dump are there in their recorded sizes; their content is not read."""
    try:
        return all(os.path.getsize(os.path.join(dump["path"], f["name"])) == f["bytes"] for f in dump["files"])
    except OSError:
        return False


def expired(
    dumps: Sequence[Mapping[str, Any]], now: datetime, keep_days: Optional[float], keep_count: Optional[int]
) -> list[Mapping[str, Any]]:
    """Which dumps of one set may go, the oldest first.

    Each of ``dumps`` has ``id``, ``ended`` and ``whole``. One may go when every limit that is given lets it: it ended
    more than ``keep_days`` days ago, and ``keep_count`` whole ones are newer. The newest whole one never goes, nor
    anything when no limit is given. Dumps that are not whole do not count as kept.
    """
    if keep_days is None and keep_count is None:
        return []
    may_go: list[Mapping[str, Any]] = []
    newer_whole = 0
    # Two may end in the same second; ids are times of beginning.
    for dump in sorted(dumps, key=lambda item: (parse_time(item["ended"]), item["id"]), reverse=True):
        old = keep_days is None or parse_time(dump["ended"]) < now - timedelta(days=keep_days)
        if old and newer_whole >= max(keep_count or 1, 1):
            may_go.append(dump)
        newer_whole += int(dump["whole"])
    return may_go[::-1]


def sum_files(folder: str, within: str) -> list[dict[str, Any]]:
    """``[{name, bytes, sha256}]`` of the file or directory ``within`` in ``folder``; names are relative to it."""
    top = os.path.join(folder, within)
    names = [within] if os.path.isfile(top) else [os.path.join(within, name) for name in sorted(os.listdir(top))]
    files = []
    for name in names:
        path = os.path.join(folder, name)
        files.append({"name": name, "bytes": os.path.getsize(path), "sha256": sha256(path)})
    return files


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def check_files(dump: Mapping[str, Any]) -> None:
    """Raise RecoveryError unless every file of the dump is what it was when the dump was taken."""
    missing, differing = [], []
    for file in dump["files"]:
        path = os.path.join(dump["path"], file["name"])
        if not os.path.isfile(path):
            missing.append(file["name"])
        elif os.path.getsize(path) != file["bytes"] or sha256(path) != file["sha256"]:
            differing.append(file["name"])
    known = {file["name"] for file in dump["files"]}
    top = os.path.join(dump["path"], dump["dump"])
    added = [os.path.join(dump["dump"], n) for n in sorted(os.listdir(top))] if os.path.isdir(top) else []
    added = [name for name in added if name not in known]
    found = [
        f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in (("gone", missing), ("with another checksum", differing), ("not of this dump", added))
        if names
    ]
    if found:
        raise RecoveryError(
            f"the dump {dump['path']} on {socket.gethostname()} is not what was written on {dump['ended']}. Files "
            f"{'; '.join(found)}. Nothing was restored. Take another dump of the set {dump['name']}, or a copy of "
            "this one from elsewhere.",
            missing=missing,
            differing=differing,
            added=added,
        )


def write_json(path: str, value: Any) -> None:
    """Write a file that is either the old or the new one, whatever happens, and is on disk afterwards."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_catalogue(base: str) -> None:
    """List what is below ``base`` in its ``catalogue.json``."""
    with locked(os.path.join(base, ".catalogue.lock"), "the catalogue"):
        listed = [{key: dump[key] for key in dump if key != "needs"} for dump in read_dumps(base)]
        write_json(os.path.join(base, CATALOGUE), {"version": 1, "dumps": listed})


def remove(dump: Mapping[str, Any]) -> None:
    """Remove a dump's folder; killed in the middle, it leaves one that does not pass for a dump."""
    head, tail = os.path.split(dump["path"])
    doomed = os.path.join(head, f".{tail}.partial")
    os.rename(dump["path"], doomed)
    shutil.rmtree(doomed)


def remove_partial(folder: str) -> None:
    """Remove what killed runs left in the folder of a set; the caller holds the database's lock."""
    for name in _folders(folder, PARTIAL):
        shutil.rmtree(os.path.join(folder, name))


@contextmanager
def locked(path: str, what: str, wait: float = LOCK_WAIT) -> Iterator[int]:
    """Hold the lock file at ``path``, waiting up to ``wait`` seconds; its descriptor, to hand on to children."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
                    raise RecoveryError(
                        f"another run holds {what} on {socket.gethostname()} since more than {wait:g} seconds "
                        f"({path}: process {holder or 'unknown'}). Nothing was done, earlier dumps are as they were. "
                        "Look at what that process waits for."
                    ) from None
                time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
