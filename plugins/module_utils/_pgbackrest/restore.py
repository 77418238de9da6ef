# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan a side restore: which backup set, which WAL, how much disk, which databases and tablespaces.

Pure functions over the JSON of ``pgbackrest info`` and ``repo-ls`` and the text of timeline history files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_lsn,
    parse_segment_name,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time

MIB = 1024 * 1024
DEFAULT_SEGMENT_SIZE = 16 * MIB
FIRST_USER_OID = 16384
SYSTEM_DATABASES = frozenset(["postgres", "template0", "template1"])
# A WAL file in the repository: its name, a dash, the checksum, and the suffix of the compression.
_ARCHIVED_SEGMENT = re.compile(r"(?:^|/)([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?$")
_SIDE_OPTION = re.compile(
    r"(?:repo\d*-.+|cmd|cmd-ssh|buffer-size|compress-level-network|io-timeout|protocol-timeout|sck-.+|tcp-keep-alive.*)"
)


def iso_time(epoch: float) -> str:
    """ISO-8601 text, in UTC, of seconds since 1970."""
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat()


def find_segment_size(
    backups: Iterable[Mapping[str, Any]], target: Mapping[str, Any], told: Optional[int] = None
) -> int:
    """Bytes of a WAL segment, as told, or from positions whose WAL file names are known (backups' starts, the target).

    pgBackRest 2.33 does not say where backups start.
    """
    known = [
        (backup["lsn"]["start"], backup["archive"]["start"])
        for backup in backups
        # pgBackRest 2.33 says no LSN.
        if has_wal(backup) and (backup.get("lsn") or {}).get("start")
    ]
    if target["type"] == "lsn" and target.get("segment"):
        known.append((str(target["value"]), str(target["segment"])))
    fitting = [
        size
        for size in ([told] if told else [MIB << power for power in range(11)])
        if all(parse_lsn(lsn) // size == parse_segment_name(name, size)[1] for lsn, name in known)
    ]
    if not fitting:
        raise RecoveryError(
            f"the target {target['value']} is not in the WAL file {target.get('segment')} that was named with it: "
            "the two do not belong together. Find the target again with postgresql_recovery_target_info."
        )
    return DEFAULT_SEGMENT_SIZE if DEFAULT_SEGMENT_SIZE in fitting else fitting[0]


def has_wal(backup: Mapping[str, Any]) -> bool:
    """Whether info says where a backup begins and ends in WAL. Of one of a stopped server (--no-online) it does not."""
    archive = backup.get("archive") or {}
    return bool(archive.get("start") and archive.get("stop"))


def backup_end(backup: Mapping[str, Any], segment_size: int) -> int:
    """Position at which a backup is consistent: its stop LSN, or the end of its last WAL file where info has none."""
    if (backup.get("lsn") or {}).get("stop"):
        return parse_lsn(backup["lsn"]["stop"])
    return (parse_segment_name(backup["archive"]["stop"], segment_size)[1] + 1) * segment_size


def set_summary(backup: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan says of a backup set."""
    lsn = backup.get("lsn") or {}
    return {
        "label": backup["label"],
        "type": backup["type"],
        "start_time": iso_time(backup["timestamp"]["start"]),
        "stop_time": iso_time(backup["timestamp"]["stop"]),
        "start_lsn": lsn.get("start"),
        "stop_lsn": lsn.get("stop"),
        "size": backup["info"]["size"],
        "error": bool(backup.get("error")),
        "repo": backup["database"].get("repo-key", 1),
    }


def why_unfit(
    backup: Mapping[str, Any], target: Mapping[str, Any], history: Timelines, segment_size: int
) -> Optional[str]:
    """Why a backup set cannot lead to the target; None when it can."""
    if backup.get("error"):
        return "it holds damaged pages (checksum errors)"
    if not backup["archive"].get("start") or not backup["archive"].get("stop"):
        return "it was taken from a stopped server (--no-online), so that no WAL is known to follow it"
    end = backup_end(backup, segment_size)
    timeline = int(backup["archive"]["start"][:8], 16)
    if timeline != target["timeline"]:
        left = [end for older, end in history.ends if older == timeline]
        if not left:
            return f"it is on timeline {timeline}, which does not lead to timeline {target['timeline']}"
        if end > left[0]:
            return f"it ended after timeline {timeline} was left at {format_lsn(left[0])}"
    kind = target["type"]
    stopped = iso_time(backup["timestamp"]["stop"])
    if kind == "lsn":
        return None if end <= parse_lsn(str(target["value"])) else f"it ended at {format_lsn(end)}, after the target"
    moment = str(target["value"]) if kind == "time" else target.get("commit_time")
    if kind == "immediate":
        return None
    if moment:
        # Backup times are whole seconds: one that ended within the target's second may have ended after it.
        ended = backup["timestamp"]["stop"] + 1
        return (
            None
            if ended <= parse_time(moment, "target").timestamp()
            else f"it ended at {stopped}, not before the target"
        )
    if target.get("segment"):
        last = parse_segment_name(target["segment"], segment_size)[1]
        return (
            None if end <= last * segment_size else f"it ended at {format_lsn(end)}, after the target's WAL file began"
        )
    return (
        f"whether it ended ({stopped}) before {kind} {target['value']} cannot be known without commit_time or segment"
    )


def choose_set(
    backups: Sequence[Mapping[str, Any]],
    target: Mapping[str, Any],
    history: Timelines,
    segment_size: int,
    wanted: Optional[str] = None,
) -> Mapping[str, Any]:
    """The newest backup set that leads to the target, or the wanted one.

    Raises RecoveryError with the reason of every set and the nearest that works.
    """
    reasons = {backup["label"]: why_unfit(backup, target, history, segment_size) for backup in backups}
    fit = [backup for backup in backups if reasons[backup["label"]] is None]
    fit.sort(key=lambda backup: (backup["timestamp"]["stop"], -backup["database"].get("repo-key", 1)))
    where = f"the target ({target['type']} {target['value']}, timeline {target['timeline']})"
    details = {
        "sets": [
            {
                "label": backup["label"],
                "stop_time": iso_time(backup["timestamp"]["stop"]),
                "unfit": reasons[backup["label"]],
            }
            for backup in backups
        ]
    }
    if wanted is not None:
        for backup in reversed(fit):
            if backup["label"] == wanted:
                return backup
        why = reasons.get(wanted, "it is not in the repository") if wanted in reasons else "it is not in the repository"
        nearest = f"Backup set {fit[-1]['label']} works." if fit else "No other set works either."
        raise RecoveryError(f"backup set {wanted} cannot lead to {where}: {why}. {nearest}", **details)
    if fit:
        return fit[-1]
    if not backups:
        raise RecoveryError("the stanza has no backup at all: there is nothing to restore from.", **details)
    sound = sorted((b for b in backups if not b.get("error") and has_wal(b)), key=lambda b: b["timestamp"]["stop"])
    window = "None of them is sound."
    if sound:
        first = sound[0]
        window = (
            f"The earliest moment this repository can return to is the end of backup {first['label']}: "
            f"{iso_time(first['timestamp']['stop'])}, LSN {format_lsn(backup_end(first, segment_size))}. "
            "Choose a target after it, or another repository with repo."
        )
    listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
    raise RecoveryError(f"no backup set leads to {where}. {listed}. {window}", **details)


def other_sets(
    backups: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any],
    target: Mapping[str, Any],
    history: Timelines,
    segment_size: int,
) -> list[Mapping[str, Any]]:
    """The other sets that lead to the target, the newest first."""
    fit = [
        backup
        for backup in backups
        if backup is not chosen and why_unfit(backup, target, history, segment_size) is None
    ]
    return sorted(fit, key=lambda backup: int(backup["timestamp"]["stop"]), reverse=True)


def needed_segments(first: int, last: int, history: Timelines, segment_size: int) -> Iterator[str]:
    """WAL file names that recovery reads from segment number ``first`` to ``last``, following the timelines.

    The file in which a timeline was left is read from the newer timeline, which begins with a copy of it
    (PostgreSQL: XLogFileReadAnyTLI in src/backend/access/transam/xlogrecovery.c).
    """
    for number in range(first, last + 1):
        yield segment_name(history.of_segment(number, segment_size), number, segment_size)


def archived_segments(listing: Iterable[str]) -> set[str]:
    """WAL file names present in a repo-ls listing (its keys)."""
    return {match.group(1) for match in map(_ARCHIVED_SEGMENT.search, listing) if match}


def archived_timelines(listing: Iterable[str]) -> list[str]:
    """What a repo-ls listing of an archive (its keys, not of what is below) says of timelines, sorted.

    ``00000001`` for WAL of timeline 1, ``00000002.history`` for the history of timeline 2. A server that archives what
    it should not, such as one restored from a backup and promoted, shows here first.
    """
    found = {name[:8] if re.fullmatch(r"[0-9A-F]{16}", name) else name for name in listing}
    return sorted(name for name in found if re.fullmatch(r"[0-9A-F]{8}(\.history)?", name))


def segments_kept(ranges: Iterable[Mapping[str, str]], segment_size: int) -> set[str]:
    """Names of the WAL files in ranges, each with its ``first`` and ``last``, of one timeline."""
    kept = set()
    for item in ranges:
        timeline, first = parse_segment_name(item["first"], segment_size)
        last = parse_segment_name(item["last"], segment_size)[1]
        kept |= {segment_name(timeline, number, segment_size) for number in range(first, last + 1)}
    return kept


def plan_wal(
    needed: Sequence[str],
    present: set[str],
    newest: str,
    *,
    may_wait: bool,
    where: str,
    kept: Collection[str] = (),
) -> dict[str, Any]:
    """What a plan says of WAL: {first, last, count, continuous, waiting_for, from_production}.

    A missing file is an error that names it. Only when ``may_wait`` (a plan before production switched WAL) may files
    be missing that production's pg_wal has ``kept``, from where they are put back, and such that are newer than all
    archived ones of their timeline, of which ``newest`` is one; ``waiting_for`` names the last. Files of another
    timeline say nothing: after a recovery to a point in time the old timeline may have gone further than the new one.
    """

    def is_to_come(name: str) -> bool:
        return not any(other[:8] == name[:8] and other > name for other in (*present, newest))

    missing = [name for name in needed if name not in present]
    lost = [name for name in missing if not is_to_come(name)]
    gaps = [name for name in missing if not (may_wait and (is_to_come(name) or name in kept))]
    if gaps:
        name = gaps[0]
        if is_to_come(name):
            raise RecoveryError(
                f"WAL file {name}, which holds the target, is not in the archive yet ({where}; its newest is "
                f"{newest}). Nothing was changed. Make production archive it: postgresql_wal_archive with this "
                "segment, or SELECT pg_switch_wal() on production.",
                missing_wal=missing,
            )
        raise RecoveryError(
            f"WAL file {name} is missing from the archive ({where}){_kept_note(name, kept)}: recovery from {needed[0]} "
            f"to {needed[-1]} would stop before it. {len(gaps)} of {len(needed)} files are missing. Nothing was "
            "changed. Put the file back (where a standby's pg_wal has it, copy it to production's host and run there, "
            "as the server's user, pgbackrest archive-push with its path), use a repository that has it "
            "(dr_repository), a backup set that ended after it (dr_set), or a target before it.",
            missing_wal=missing,
        )
    return {
        "first": needed[0],
        "last": needed[-1],
        "count": len(needed),
        "continuous": True,
        "waiting_for": missing[-1] if missing else None,
        "from_production": lost,
    }


def _kept_note(name: str, kept: Collection[str]) -> str:
    if not kept:
        return ""
    return "; production's pg_wal still has it" if name in kept else ", and production's pg_wal does not have it either"


def check_system(
    db: Mapping[str, Any], system_identifier: Optional[int], major_version: Optional[int], stanza: str
) -> int:
    """Major version of the stanza's database; refuses when the repository belongs to another server."""
    if system_identifier is not None and int(db["system-id"]) != system_identifier:
        raise RecoveryError(
            f"the backups of stanza {stanza!r} are of the server with system identifier {db['system-id']}, but "
            f"production's is {system_identifier}: they are not of the same database. Nothing was changed. "
            "Name the right stanza (pgbackrest_stanza), or run pgbackrest stanza-upgrade after a major upgrade."
        )
    major = int(str(db["version"]).split(".", maxsplit=1)[0])
    if major_version is not None and major != major_version:
        raise RecoveryError(
            f"the backups of stanza {stanza!r} are of PostgreSQL {major}, but production runs {major_version}. "
            "Nothing was changed. Name the right stanza, or a target before the upgrade."
        )
    return major


def is_system(database: Mapping[str, Any]) -> bool:
    """Whether pgBackRest restores a database in any case, and refuses to be told so: by its name, or by its OID, which
    tells that initdb made it (pgBackRest: restoreSelectiveExpression in src/command/restore/restore.c).
    """
    return database["name"] in SYSTEM_DATABASES or int(database["oid"]) < FIRST_USER_OID


def choose_databases(
    wanted: Sequence[str],
    in_set: Sequence[Mapping[str, Any]],
    production: Sequence[Mapping[str, Any]] = (),
    full_page_writes: bool = True,
) -> list[dict[str, Any]]:
    """Databases of the set to restore alone, [] for all.

    They are wanted by the names they have in production now; the set knows them by those of its time. So it is the OID
    that counts. One that the set lacks came to life later, perhaps under a name that another had before: WAL makes it,
    and then only a restore of everything is whole. One that production lacks is gone, and only its name is known.
    """
    now = {database["name"]: int(database["oid"]) for database in production if database.get("oid")}
    of_oid = {int(database["oid"]): database for database in in_set}
    of_name = {database["name"]: database for database in in_set}
    found = [of_oid.get(now[name]) if name in now else of_name.get(name) for name in wanted]
    if not full_page_writes:
        return []
    chosen = [dict(database) for database in found if database is not None and not is_system(database)]
    return [] if None in found else chosen


def left_out(in_set: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Databases of the set that are restored as empty files when only the ``chosen`` ones are wanted."""
    kept = {int(database["oid"]) for database in chosen}
    return [
        {"name": database["name"], "oid": int(database["oid"])}
        for database in in_set
        if kept and int(database["oid"]) not in kept and not is_system(database)
    ]


def check_tablespaces(
    production: Sequence[Mapping[str, Any]], in_set: Sequence[Mapping[str, Any]], label: str
) -> list[dict[str, Any]]:
    """Tablespaces of the set; refuses when production has one that the set lacks, since it could not be mapped."""
    known = {int(tablespace["oid"]) for tablespace in in_set}
    for tablespace in production:
        oid = int(tablespace["oid"])
        if oid >= FIRST_USER_OID and oid not in known:
            raise RecoveryError(
                f"tablespace {tablespace['name']!r} ({tablespace.get('location')}) was made after backup set {label}: "
                "replaying WAL would write to that very place, and into files that are newer. Nothing was changed. "
                "Use a backup set made after the tablespace (dr_set). If it was made after the target, no set can be: "
                "move what is in it elsewhere (ALTER TABLE ... SET TABLESPACE), drop it, and run this again.",
                tablespace=dict(tablespace),
            )
    return [dict(tablespace) for tablespace in in_set]


def restored_bytes(set_size: int, without: Sequence[Mapping[str, Any]], production: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of a set that are restored, ``without`` some databases; see needed_bytes."""
    return max(set_size - sum(size for size, out in _sizes(without, production) if out), 0)


def _sizes(without: Sequence[Mapping[str, Any]], production: Sequence[Mapping[str, Any]]) -> list[tuple[int, bool]]:
    """Size of each database of production, and whether it is among those ``without``."""
    oids, names = ({database[key] for database in without} for key in ("oid", "name"))
    return [
        (
            int(database.get("size") or 0),
            int(database["oid"]) in oids if database.get("oid") else database["name"] in names,
        )
        for database in production
    ]


def needed_bytes(
    set_size: int,
    without: Sequence[Mapping[str, Any]],
    production: Sequence[Mapping[str, Any]],
    wal_bytes: int,
    kept_wal: int,
) -> int:
    """Bytes the side instance may take: restored files, growth in replay, WAL kept, five per cent and 64 MiB over.

    Databases ``without`` which it is made are restored as files full of holes. Sizes are production's of now. Once a
    page of theirs was missed, PostgreSQL writes no more restart points, and all WAL stays
    (PostgreSQL: RecoveryRestartPoint in src/backend/access/transam/xlog.c).
    """
    data = restored_bytes(set_size, without, production)
    now = sum(size for size, out in _sizes(without, production) if not out)
    growth = min(wal_bytes, max(now - data, 0) + wal_bytes // 4)
    return int((data + growth) * 1.05) + (wal_bytes if without else min(wal_bytes, kept_wal)) + 64 * MIB


def check_disk(needed: int, usable: int, path: str, host: str) -> None:
    """Refuse when the bytes that are free (or ours already) do not suffice."""
    if usable < needed:
        raise UnfitHost(
            f"the side instance needs about {needed // MIB} MiB at {path} on {host}, and {usable // MIB} MiB are free: "
            f"{(needed - usable) // MIB + 1} MiB too few. Nothing was changed. Make room, choose another path, or "
            "another host.",
            disk={"path": path, "needed": needed, "free": usable},
        )


def side_config(sources: Sequence[str], *, stanza: str, own: Mapping[str, str]) -> str:
    """pgbackrest.conf of the side instance: how to reach the repository, from the host's files; all else our ``own``.

    ``sources`` are the texts of the host's configuration files. Options of other stanzas, of production's data
    directory and its paths are left behind, so that nothing here can touch them.
    """
    wanted = ["global", "global:restore", "global:archive-get", stanza, f"{stanza}:restore", f"{stanza}:archive-get"]
    kept: dict[str, list[str]] = {section: [] for section in wanted}
    section = ""
    for line in (line.strip() for text in sources for line in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section in kept and "=" in line and not line.startswith("#"):
            key, value = (part.strip() for part in line.split("=", 1))
            if _SIDE_OPTION.fullmatch(key):
                kept[section].append(f"{key}={value}")
    kept["global"] += [f"{key}={value}" for key, value in own.items() if not key.startswith("pg1-")]
    kept[stanza] += [f"{key}={value}" for key, value in own.items() if key.startswith("pg1-")]
    return "\n".join(f"[{name}]\n" + "".join(line + "\n" for line in lines) for name, lines in kept.items() if lines)
