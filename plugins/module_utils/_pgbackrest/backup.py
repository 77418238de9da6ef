# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a stanza or a backup needs, and say what went wrong."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import (
    STATUS_MISSING_STANZA_DATA,
    STATUS_MISSING_STANZA_PATH,
    archived_at,
    current_databases,
    last_archive,
    manifest_facts,
    recovery_window,
    segment_directory,
    stanza_facts,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

ANNOTATIONS_SINCE = (2, 41)
OWN_OPTIONS = frozenset(["annotation", "config", "expire-auto", "repo", "stanza", "type"])


def describe_stanza(pgbackrest: PgBackRest) -> dict[str, Any]:
    """Return the stanza's facts with its recovery window."""
    facts = stanza_facts(pgbackrest.info())
    archive = last_archive(facts)
    archived = None
    if archive:
        listing = pgbackrest.repo_ls(segment_directory(pgbackrest.stanza, archive), repo=archive["repo"])
        archived = archived_at(listing, archive["max"])
    facts["window"] = recovery_window(facts, archived)
    return facts


def describe_backup(pgbackrest: PgBackRest, facts: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return one backup with its databases, tablespaces and page errors, read from its manifest."""
    for backup in facts["backups"]:
        if backup["label"] == label:
            path = f"backup/{pgbackrest.stanza}/{label}/backup.manifest"
            return {**backup, **manifest_facts(pgbackrest.repo_get(path, repo=backup["repo"]))}
    labels = ", ".join(backup["label"] for backup in facts["backups"]) or "none"
    raise RecoveryError(f"There is no backup {label!r} in stanza '{pgbackrest.stanza}'. Its backups: {labels}.")


def stanza_action(facts: Mapping[str, Any], system_identifier: int, major: int, upgrade: bool) -> str:
    """Return what makes the stanza right for this cluster: `none`, `create` or `upgrade`.

    Raises RecoveryError for a repository that cannot be read and for the stanza of another cluster.
    """
    missing = False
    for repo in facts["repositories"]:
        code = repo["status"]["code"]
        if code in (STATUS_MISSING_STANZA_PATH, STATUS_MISSING_STANZA_DATA):
            missing = True
        elif code is not None and code > STATUS_MISSING_STANZA_DATA:
            raise RecoveryError(
                f"Repository {repo['repo']} of stanza '{facts['name']}' cannot be judged from {socket.gethostname()}: "
                f"{repo['status']['message']} (code {code}). Nothing was changed. "
                "Run 'pgbackrest info' there as the PostgreSQL user and mend what it names."
            )
    differing = [
        entry
        for entry in current_databases(facts)
        if (entry["system_identifier"], entry["version"].split(".")[0]) != (system_identifier, str(major))
    ]
    if not differing:
        return "create" if missing else "none"
    if upgrade:
        return "upgrade"
    theirs = differing[0]
    raise RecoveryError(
        f"Stanza '{facts['name']}' belongs to another cluster: its repository {theirs['repo']} knows PostgreSQL "
        f"{theirs['version']} with system identifier {theirs['system_identifier']}, this server on "
        f"{socket.gethostname()} is PostgreSQL {major} with {system_identifier}. Nothing was changed, its backups are "
        "untouched. After pg_upgrade set 'upgrade: true'; for a different cluster choose another stanza name."
    )


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Return command line options from {name: value}: booleans become --name or --no-name, lists are repeated."""
    arguments: list[str] = []
    for name, value in options.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise RecoveryError(f"{name!r} is not the name of a pgBackRest option. Write it without dashes before it.")
        if name in OWN_OPTIONS:
            raise RecoveryError(f"'{name}' cannot be given in 'options': the module has a way of its own for it.")
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            arguments += [f"--{name}={entry}" for entry in value]
        elif isinstance(value, dict):
            arguments += [f"--{name}={key}={entry}" for key, entry in value.items()]
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def annotation_arguments(
    annotations: Mapping[str, Any], version: tuple[int, int], notes: Optional[Mapping[str, Any]] = None
) -> list[str]:
    """Return --annotation options; raise where this pgBackRest has none (they came with 2.41).

    ``notes`` are left out there instead.
    """
    if annotations and version < ANNOTATIONS_SINCE:
        raise RecoveryError(
            f"pgBackRest {version[0]}.{version[1]} on {socket.gethostname()} has no annotations (2.41 and later do). "
            "Nothing was done. Leave 'annotations' out or install a newer pgBackRest."
        )
    known = {**((notes or {}) if version >= ANNOTATIONS_SINCE else {}), **annotations}
    return [f"--annotation={key}={value}" for key, value in known.items()]


def require_stanza(facts: Mapping[str, Any]) -> None:
    """Raise unless the stanza exists."""
    if not facts["databases"]:
        raise RecoveryError(
            f"Stanza '{facts['name']}' does not exist on {socket.gethostname()}: {facts['status']['message']}. "
            "Nothing was done. Make it with the module dbre.recovery.pgbackrest_stanza."
        )


def expires_by_itself(pgbackrest: PgBackRest) -> bool:
    """Return whether the configuration lets a backup expire older ones (expire-auto, on unless it is switched off)."""
    return "current: n" not in pgbackrest.help("backup", "expire-auto").splitlines()


def take_backup(
    pgbackrest: PgBackRest, before: Mapping[str, Any], backup_type: str, arguments: list[str], *, expire: bool = True
) -> dict[str, Any]:
    """Take a backup and return it with its page errors; raise RecoveryError when it has any.

    Expiry waits until the new backup is known to be whole: a backup of damaged pages must not push out a good one.
    """
    pgbackrest.run("backup", f"--type={backup_type}", "--no-expire-auto", *arguments)
    after = describe_stanza(pgbackrest)
    known = {(backup["repo"], backup["label"]) for backup in before["backups"]}
    new = [backup for backup in after["backups"] if (backup["repo"], backup["label"]) not in known]
    if not new:
        raise RecoveryError(
            f"pgBackRest said it made a backup of stanza '{pgbackrest.stanza}', but 'info' shows no new one. "
            f"Look at its log on {socket.gethostname()}; the older backups are untouched."
        )
    backup = max(new, key=lambda entry: str(entry["stop_time"]))
    if backup["error"] is not False:
        backup = describe_backup(pgbackrest, after, backup["label"])
    if backup["error"] or backup.get("page_errors"):
        raise page_error(pgbackrest.stanza, backup, after)
    if expire and expires_by_itself(pgbackrest):
        pgbackrest.run("expire")
    return {**backup, "page_errors": []}


def page_error(stanza: str, backup: Mapping[str, Any], facts: Mapping[str, Any]) -> RecoveryError:
    """Return the error for a backup that holds pages with wrong checksums."""
    files = "; ".join(
        f"{entry['file']} page{'s' if len(entry['pages']) > 1 else ''} "
        f"{', '.join(str(page) for page in entry['pages'][:20])}{' ...' if len(entry['pages']) > 20 else ''}"
        for entry in backup["page_errors"]
    )
    whole = [entry["label"] for entry in facts["backups"] if entry["error"] is False]
    safe = f"the last backup without errors is {whole[-1]}" if whole else "there is no backup without errors"
    return RecoveryError(
        f"Backup {backup['label']} of stanza '{stanza}' on {socket.gethostname()} holds pages with wrong checksums: "
        f"{files}. The server's data files are damaged there. The backup was kept and nothing was expired; {safe}. "
        "Find the relation with 'SELECT oid::regclass FROM pg_class WHERE relfilenode = <number>' in that database "
        "and put it back from a good backup before 'pgbackrest expire' or another backup runs.",
        backup=dict(backup),
        page_errors=backup["page_errors"],
        changed=True,
        whole_backups=whole,
        window=facts["window"],
    )


ARCHIVER_QUERY = """
SELECT json_build_object(
  'archived_count', archived_count, 'last_archived_wal', last_archived_wal, 'last_archived_time', last_archived_time,
  'failed_count', failed_count, 'last_failed_wal', last_failed_wal, 'last_failed_time', last_failed_time,
  'archive_mode', current_setting('archive_mode'), 'archive_command', current_setting('archive_command'),
  'archive_library', coalesce(current_setting('archive_library', true), ''),
  'in_recovery', pg_is_in_recovery(), 'log_file', pg_current_logfile(),
  'segment', CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END)
FROM pg_stat_archiver
"""


def prove_archiving(pgbackrest: PgBackRest, archiver: Mapping[str, Any], timeout: int | None) -> dict[str, Any]:
    """Run `check` and return the WAL segment that reached the repository, its archive and the seconds it took.

    `archiver` is the row of ARCHIVER_QUERY from before: its segment is the one `check` makes the server switch.
    """
    started = time.monotonic()
    pgbackrest.run("check", *([f"--archive-timeout={timeout}"] if timeout else []))
    seconds = round(time.monotonic() - started, 2)
    archive = last_archive(stanza_facts(pgbackrest.info()))
    segment = archiver["segment"]
    if archive is None or (segment and archive["max"][:8] == segment[:8] and archive["max"] < segment):
        raise RecoveryError(
            f"pgBackRest check passed, but the repository of stanza '{pgbackrest.stanza}' ends at "
            f"{archive['max'] if archive else 'nothing'}, before the server's segment {segment}: the server on "
            f"{socket.gethostname()} archives somewhere else. Its {_way(archiver)}."
        )
    return {"segment": segment or archive["max"], "archive_max": archive["max"], "duration": seconds}


def _way(archiver: Mapping[str, Any]) -> str:
    """The setting by which a server archives, and its value."""
    name = "archive_library" if archiver.get("archive_library") else "archive_command"
    return f"{name} is {archiver[name]!r}"


def archiving_advice(archiver: Mapping[str, Any]) -> str:
    """Return what to look at when `check` failed, from the row of ARCHIVER_QUERY taken afterwards."""
    if archiver["archive_mode"] == "off":
        return (
            "archive_mode is off. The role dbre.recovery.postgresql_archiving switches it on; the server must restart "
            "for it, which the role does with postgresql_archiving_restart=true."
        )
    if not archiver["archive_command"] and not archiver.get("archive_library"):
        return "archive_command is empty: the role dbre.recovery.postgresql_archiving sets it."
    log = f" The server's log is {archiver['log_file']}." if archiver["log_file"] else " Look at the server's log."
    if archiver["last_failed_wal"]:
        return (
            f"The server last failed to archive {archiver['last_failed_wal']} at {archiver['last_failed_time']} "
            f"({archiver['failed_count']} failures, last success {archiver['last_archived_wal'] or 'never'}), "
            f"and its {_way(archiver)}.{log} WAL waits in pg_wal until it can be archived."
        )
    return f"The server has had no failed archiving; its {_way(archiver)}.{log}"
