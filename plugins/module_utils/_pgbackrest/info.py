# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand pgBackRest's `info --output=json` and backup manifests.

The JSON grew from version to version: a field that an older pgBackRest does not write is None here, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Optional

# pgBackRest: src/command/info/info.c, "Stanza status codes"
STATUS_OK = 0
STATUS_MISSING_STANZA_PATH = 1
STATUS_NO_BACKUP = 2
STATUS_MISSING_STANZA_DATA = 3
STATUS_MIXED = 4
STATUS_PG_MISMATCH = 5

# Types of backup that serve as one of a type.
SERVED_BY = {"full": ("full",), "diff": ("full", "diff"), "incr": ("full", "diff", "incr")}


def iso_time(seconds: float | None) -> str | None:
    """Return an epoch time (seconds) as ISO 8601 in UTC with its numeric offset."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def backup_facts(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return one backup of the JSON as flat facts: sizes in bytes, times as ISO 8601 with offset, duration in seconds.

    `size` is the whole cluster, `delta` what this backup copied; `repo_size` and `repo_delta` are the same as stored.
    `error` is True when pages failed their checksum, None when this pgBackRest does not say.
    """
    times = raw.get("timestamp") or {}
    start, stop = times.get("start"), times.get("stop")
    sizes = raw.get("info") or {}
    stored = sizes.get("repository") or {}
    archive = raw.get("archive") or {}
    lsn = raw.get("lsn") or {}
    database = raw.get("database") or {}
    return {
        "label": raw["label"],
        "type": raw.get("type"),
        "prior": raw.get("prior"),
        "references": raw.get("reference") or [],
        "repo": database.get("repo-key", 1),
        "database_id": database.get("id"),
        "start_time": iso_time(start),
        "stop_time": iso_time(stop),
        "duration": stop - start if start is not None and stop is not None else None,
        "start_lsn": lsn.get("start"),
        "stop_lsn": lsn.get("stop"),
        "archive_start": archive.get("start"),
        "archive_stop": archive.get("stop"),
        "size": sizes.get("size"),
        "delta": sizes.get("delta"),
        "repo_size": stored.get("size"),
        "repo_delta": stored.get("delta"),
        "error": raw.get("error"),
        "annotations": raw.get("annotation") or {},
        "pgbackrest_version": (raw.get("backrest") or {}).get("version"),
    }


def repository_message(message: Optional[str]) -> Optional[str]:
    """What pgBackRest says of a repository, on one line and readable."""
    if message is None:
        return None
    if "key/value found outside of section" in message or "CryptoError" in message:
        return f"{message.split(':')[0].strip()}: it cannot be decrypted; is its passphrase (repoN-cipher-pass) right?"
    text = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return text if len(text) <= 400 else f"{text[:400]} ..."


def stanza_facts(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stanza of `info --output=json` as flat facts; what is absent in older versions is None or empty."""
    status = raw.get("status") or {}
    backup_lock = ((status.get("lock") or {}).get("backup")) or {}
    history = [
        {
            "id": entry.get("id"),
            "repo": entry.get("repo-key", 1),
            "system_identifier": entry.get("system-id"),
            "version": str(entry.get("version")),
        }
        for entry in raw.get("db") or []
    ]
    return {
        "name": raw.get("name"),
        "status": {"code": status.get("code"), "message": status.get("message")},
        "lock": {
            "backup": backup_lock.get("held"),
            "size": backup_lock.get("size"),
            "size_complete": backup_lock.get("size-cplt"),
        },
        "repositories": [
            {
                "repo": repo.get("key", 1),
                "cipher": repo.get("cipher"),
                "status": {
                    "code": (repo.get("status") or {}).get("code"),
                    "message": repository_message((repo.get("status") or {}).get("message")),
                },
            }
            for repo in raw.get("repo") or [{"cipher": raw.get("cipher"), "status": status}]
        ],
        "databases": history,
        "archives": [
            {
                "id": entry.get("id"),
                "database_id": (entry.get("database") or {}).get("id"),
                "repo": (entry.get("database") or {}).get("repo-key", 1),
                "min": entry.get("min"),
                "max": entry.get("max"),
            }
            for entry in raw.get("archive") or []
        ],
        "backups": [backup_facts(entry) for entry in raw.get("backup") or []],
    }


def current_databases(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each repository's current entry of the cluster history (the one with the highest id)."""
    newest: dict[int, dict[str, Any]] = {}
    for entry in facts["databases"]:
        if entry["repo"] not in newest or entry["id"] > newest[entry["repo"]]["id"]:
            newest[entry["repo"]] = entry
    return [newest[repo] for repo in sorted(newest)]


def other_cluster(facts: Mapping[str, Any], repo: int, production: Optional[str]) -> Optional[str]:
    """What to say where a repository's present cluster is not production's, or, without that, not the first one's.

    ``production`` is its system identifier, where it was asked.
    """
    present = {one["repo"]: one for one in current_databases(facts)}
    if repo not in present:
        return None
    whose, wanted = "production's", production
    if production is None:
        first = min(present)
        whose, wanted = f"repository {first}'s", str(present[first]["system_identifier"])
    found = str(present[repo]["system_identifier"])
    if found == wanted:
        return None
    return (
        f"the backups in repository {repo} are of the cluster with system identifier {found} (PostgreSQL "
        f"{present[repo]['version']}), and {whose} is {wanted}: is it the right stanza, and was pgbackrest "
        "stanza-upgrade run after production was made anew?"
    )


def last_archive(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the archive of the current cluster that reaches furthest, or None when no WAL is archived yet."""
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    found = [entry for entry in facts["archives"] if entry["max"] and (entry["repo"], entry["database_id"]) in current]
    return max(found, key=lambda entry: entry["max"][8:], default=None)


def segment_directory(stanza: str, archive: Mapping[str, Any]) -> str:
    """Return the repository path of the directory that holds an archive's newest WAL segment."""
    return f"archive/{stanza}/{archive['id']}/{archive['max'][:16]}"


def archived_at(listing: Mapping[str, Any], segment: str) -> int | None:
    """Return when a WAL segment was stored (epoch seconds), from `repo-ls --output=json` of its directory."""
    for name, entry in listing.items():
        if name == segment or name.startswith(f"{segment}-"):
            found = entry.get("time")
            return int(found) if found is not None else None
    return None


def recovery_window(facts: Mapping[str, Any], archived: int | None) -> dict[str, Any] | None:
    """Return from when to when a restore can go, or None without a backup that is known to be whole.

    The start is the end of the oldest backup without page errors; the end is the last archived WAL segment,
    stored at `archived` (epoch seconds): what was committed before that segment was closed can be had back.
    """
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    whole = [
        backup
        for backup in facts["backups"]
        # Of a backup of a stopped server (--no-online) no WAL is known, so that it leads nowhere.
        if not backup["error"]
        and backup["stop_time"]
        and backup["archive_stop"]
        and (backup["repo"], backup["database_id"]) in current
    ]
    if not whole:
        return None
    oldest = min(whole, key=lambda backup: str(backup["stop_time"]))
    archive = last_archive(facts)
    return {
        "oldest_time": oldest["stop_time"],
        "oldest_lsn": oldest["stop_lsn"],
        "oldest_backup": oldest["label"],
        "newest_time": iso_time(archived),
        "newest_segment": archive["max"] if archive else None,
    }


def recent_backup(
    facts: Mapping[str, Any], backup_type: str, max_age: int, now: float, repo: int | None = None
) -> dict[str, Any] | None:
    """Return the newest backup without errors of at least this type that ended within `max_age` seconds of `now`.

    A full backup also satisfies `diff` and `incr`. Backups of an earlier cluster (before an upgrade) do not count,
    nor do those on another repository than `repo`.
    """
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    oldest = iso_time(now - max_age) or ""
    found = [
        backup
        for backup in facts["backups"]
        if backup["type"] in SERVED_BY[backup_type]
        and not backup["error"]
        and (backup["repo"], backup["database_id"]) in current
        and (repo is None or backup["repo"] == repo)
        and (backup["stop_time"] or "") >= oldest
    ]
    return max(found, key=lambda backup: str(backup["stop_time"]), default=None)


def effective_type(facts: Mapping[str, Any], backup_type: str, repo: int | None = None) -> str:
    """Return the type pgBackRest will really take: without a full backup to build on, any backup becomes a full."""
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    fulls = [
        backup
        for backup in facts["backups"]
        if backup["type"] == "full"
        and (backup["repo"], backup["database_id"]) in current
        and (repo is None or backup["repo"] == repo)
    ]
    return backup_type if fulls else "full"


def expand_pages(pages: Iterable[Any]) -> list[int]:
    """Return page numbers from the manifest's `checksum-page-error`, which holds numbers and [first, last] ranges."""
    numbers: list[int] = []
    for entry in pages:
        if isinstance(entry, list):
            numbers.extend(range(entry[0], entry[-1] + 1))
        else:
            numbers.append(entry)
    return numbers


def manifest_facts(text: str) -> dict[str, Any]:
    """Return databases, tablespaces and page errors from a `backup.manifest`.

    Format: an INI file whose values are JSON (pgBackRest: src/info/manifest.c). A file whose pages failed their
    checksum has `"checksum-page":false`, and `checksum-page-error` where single pages are known.
    """
    section = ""
    databases: list[dict[str, Any]] = []
    tablespaces: list[dict[str, Any]] = []
    page_errors: list[dict[str, Any]] = []
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "db" and "={" in line:
            name, value = line.split("={", 1)
            databases.append({"name": name, "oid": json.loads("{" + value)["db-id"]})
        elif section == "backup:target" and line.startswith("pg_tblspc/"):
            value = json.loads("{" + line.split("={", 1)[1])
            tablespaces.append(
                {
                    "oid": int(value["tablespace-id"]),
                    "name": value.get("tablespace-name"),
                    "location": value.get("path"),
                }
            )
        elif section == "target:file" and '"checksum-page":false' in line:
            name, value = line.split("={", 1)
            pages = json.loads("{" + value).get("checksum-page-error", [])
            page_errors.append({"file": name.removeprefix("pg_data/"), "pages": expand_pages(pages)})
    return {"databases": databases, "tablespaces": tablespaces, "page_errors": page_errors}
