# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a dump must be restored, in which order, so that chosen tables come back with their rows."""

from __future__ import annotations

import difflib
import locale
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import (
    DATA,
    POST_DATA,
    PRE_DATA,
    Archive,
    Entry,
    data_sizes,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    parse_schema_list,
)

RELATIONS = ("TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW", "VIEW", "SEQUENCE")
# What only a superuser may own (ALTER ... OWNER TO refuses others, whoever says it).
SUPERUSER_OWNED = ("EVENT TRIGGER", "FOREIGN DATA WRAPPER")
LARGE_OBJECTS = ("BLOB", "BLOB METADATA", "BLOBS", "BLOB COMMENTS")

# Identifiers as pg_dump writes them (fmtId in src/fe_utils/string_utils.c).
IDENT = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
QUALIFIED = rf"{IDENT}\.{IDENT}"
FOREIGN_KEY = re.compile(
    rf"ALTER (?:FOREIGN )?TABLE (?:ONLY )?({QUALIFIED})\s+ADD CONSTRAINT .*? REFERENCES ({QUALIFIED})\(", re.DOTALL
)
# A domain, or a column of a table or composite type.
NAMES_LARGE_OBJECTS = re.compile(
    rf"^(?:CREATE DOMAIN {QUALIFIED} AS|(?:    |\t){IDENT}) (?:(?:pg_catalog\.)?oid|{IDENT}\.lo)(?![\w$])", re.MULTILINE
)
# Role names in what pg_dump writes for grants, default privileges, policies, user mappings and settings of a database.
ROLE_PLACES = {
    "ACL": re.compile(
        rf"^(?:GRANT|REVOKE)\b.* (?:TO|FROM) ({IDENT})(?: WITH GRANT OPTION)?;$|SESSION AUTHORIZATION ({IDENT});", re.M
    ),
    "DEFAULT ACL": re.compile(rf"FOR ROLE ({IDENT}).* (?:TO|FROM) ({IDENT})(?: WITH GRANT OPTION)?;$", re.M),
    "POLICY": re.compile(rf" TO ({IDENT}(?:, {IDENT})*)(?= USING | WITH CHECK |;)"),
    "USER MAPPING": re.compile(rf"^CREATE USER MAPPING FOR ({IDENT}) ", re.M),
    "DATABASE PROPERTIES": re.compile(rf"^ALTER ROLE ({IDENT}) IN DATABASE ", re.M),
}
NO_ROLES = frozenset({"public", "current_user", "session_user", "current_role"})

# What one byte of a relation's data in the dump may need on disk as rows, indexes and the WAL of loading them.
GROWTH = {"none": 3, "gzip": 10, "lz4": 8, "zstd": 12}
INSTANCE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Selection:
    """Which items of a dump are restored, by dump id, in the order of the four steps."""

    whole: bool
    relations: tuple[Entry, ...]
    loaded: tuple[Entry, ...]
    definitions: tuple[int, ...]
    early: tuple[int, ...]
    rows: tuple[int, ...]
    late: tuple[int, ...]
    unread_views: tuple[Entry, ...]
    left_out: tuple[Entry, ...]


def _name(entry: Entry) -> str:
    return display_name(entry.namespace, entry.tag)


def _unknown(archive: Archive, asked: str, what: str, known: Iterable[str]) -> RecoveryError:
    names = sorted(set(known))
    last = asked.rsplit(".", 1)[-1]
    similar = [name for name in names if name.rsplit(".", 1)[-1] == last]
    similar += [name for name in difflib.get_close_matches(asked, names, n=5, cutoff=0.6) if name not in similar]
    hint = f" Similar names in it: {', '.join(similar[:5])}." if similar else f" It holds {len(names)} of them."
    return RecoveryError(
        f"the dump {archive.path} of database {archive.database} has no {what} {asked}.{hint} Nothing was changed. "
        f"Name another, or a dump made while {asked} existed.",
        similar=similar[:5],
    )


def _asked(archive: Archive, relations: Sequence[str], schemas: Sequence[str]) -> tuple[Entry, ...]:
    """The relations asked for, those of whole schemas included."""
    known = {(entry.namespace, entry.tag): entry for entry in archive.entries if entry.desc in RELATIONS}
    found: list[Entry] = []
    for relation in parse_relation_list(relations):
        entry = known.get((relation["schema"], relation["name"]))
        if entry is None:
            asked = display_name(relation["schema"], relation["name"])
            raise _unknown(archive, asked, "table", (_name(item) for item in known.values()))
        found.append(entry)
    names = {entry.namespace for entry in archive.entries} | {e.tag for e in archive.entries if e.desc == "SCHEMA"}
    for schema in parse_schema_list(schemas):
        if schema not in names:
            raise _unknown(archive, display_name(None, schema), "schema", (display_name(None, n) for n in names if n))
        found += [entry for entry in known.values() if entry.namespace == schema and entry not in found]
    return tuple(found)


def _descendants(archive: Archive, start: Iterable[Entry]) -> list[Entry]:
    """The tables of ``start`` and all partitions and inheriting tables below them, in the dump's order."""
    ids = {entry.dump_id for entry in start if entry.desc == "TABLE"}
    tables = [entry for entry in archive.entries if entry.desc == "TABLE"]
    grown = True
    while grown:
        below = {table.dump_id for table in tables if ids.intersection(table.deps)} - ids
        ids |= below
        grown = bool(below)
    return [table for table in tables if table.dump_id in ids]


def _early(archive: Archive, loaded: set[str]) -> set[int]:
    """Post-data items to restore before the rows.

    A foreign key of a loaded table to one that stays empty could not be validated once the rows are there; while
    both tables are empty it can. It needs the unique index it points to, with all its partitions' parts.
    """
    post = {entry.dump_id: entry for entry in archive.entries if entry.section == POST_DATA}
    early: set[int] = set()
    for entry in post.values():
        if entry.desc == "FK CONSTRAINT":
            own, referenced = _foreign_key(entry, archive)
            if _key(own) in loaded and _key(referenced) not in loaded:
                early.add(entry.dump_id)
    grown = bool(early)
    while grown:
        needed = {dep for dump_id in early for dep in post[dump_id].deps if dep in post}
        attached = {i for i, entry in post.items() if entry.desc == "INDEX ATTACH" and early.intersection(entry.deps)}
        grown = bool((needed | attached) - early)
        early |= needed | attached
    return early


def _foreign_key(entry: Entry, archive: Archive) -> tuple[dict[str, str], dict[str, str]]:
    """The table that has a foreign key, and the one the key points to."""
    match = FOREIGN_KEY.match(entry.defn)
    if match is None:
        raise RecoveryError(f"cannot read the foreign key {entry.tag} in {archive.path}: {entry.defn!r}")
    own, referenced = match.groups()
    return _single(own), _single(referenced)


def _single(text: str) -> dict[str, str]:
    return parse_relation_list(text)[0]


def _key(relation: dict[str, str]) -> str:
    return display_name(relation["schema"], relation["name"])


def _lacking(archive: Archive) -> list[str]:
    """Names that the dump's items need and that are not in it, as far as the table of contents tells."""
    tables = {_name(entry) for entry in archive.entries if entry.desc in ("TABLE", "FOREIGN TABLE")}
    if not tables and any(entry.desc == "TABLE DATA" for entry in archive.entries):
        return ["the definitions of its tables"]
    lacking = {_key(_foreign_key(e, archive)[1]) for e in archive.entries if e.desc == "FK CONSTRAINT"} - tables
    # Extensions make schemas of their own, which pg_dump leaves to them.
    if not any(entry.desc == "EXTENSION" for entry in archive.entries):
        made = {entry.tag for entry in archive.entries if entry.desc == "SCHEMA"} | {"public", "pg_catalog", ""}
        lacking |= {f"schema {display_name(None, e.namespace)}" for e in archive.entries if e.namespace not in made}
    if not any(entry.desc == "DATABASE" for entry in archive.entries):
        lacking.add("the database's own properties")
    return sorted(lacking)


def _refuse_partial(archive: Archive) -> None:
    lacking = _lacking(archive)
    if lacking:
        raise RecoveryError(
            f"the dump {archive.path} is of a part of database {archive.database} (pg_dump with -t, -n or -a): it "
            f"lacks {', '.join(lacking[:5])}. Nothing was changed. Name a dump of the whole database, or put this one "
            f"into a database of its own by hand: createdb rescue; pg_restore -d rescue {archive.path}",
            lacking=lacking,
        )


def select(archive: Archive, relations: Sequence[str], schemas: Sequence[str]) -> Selection:
    """Choose the definitions of everything and the rows of what was lost; with neither name, all rows.

    ``relations`` and ``schemas`` are written as in SQL. Raises RecoveryError when something asked for is not in the
    dump, when its rows are not, or when the dump is not of a whole database.
    """
    _refuse_partial(archive)
    asked = _asked(archive, relations, schemas)
    whole = not relations and not schemas
    loaded = _descendants(archive, archive.entries if whole else asked)
    row_items = {entry.deps[0]: entry for entry in archive.entries if entry.desc == "TABLE DATA" and entry.deps}
    without = [t for t in loaded if t.dump_id not in row_items and "\nPARTITION BY " not in t.defn]
    if without:
        raise RecoveryError(
            f"the dump {archive.path} has the definition but not the rows of {', '.join(map(_name, without[:5]))} "
            "(pg_dump with -s or --exclude-table-data). Nothing was changed. Name a dump that has them.",
            without_rows=[_name(table) for table in without],
        )
    left_out = {e.dump_id for e in archive.entries if e.desc == "SUBSCRIPTION"}
    large_objects = {e.dump_id for e in archive.entries if e.desc in LARGE_OBJECTS}
    # Since 17 their grants and remarks stand among the rows, as they do themselves.
    large_objects |= {e.dump_id for e in archive.entries if large_objects.intersection(e.deps)}
    if not whole and not _may_name_large_objects(archive, loaded):
        left_out |= large_objects
    left_out |= {e.dump_id for e in archive.entries if left_out.intersection(e.deps)}
    early = set() if whole else _early(archive, {_name(table) for table in loaded})
    wanted_rows = {row_items[table.dump_id].dump_id for table in loaded if table.dump_id in row_items}
    views = [e for e in archive.entries if e.desc == "MATERIALIZED VIEW DATA"]

    def ids(section: int) -> list[Entry]:
        return [e for e in archive.entries if e.section == section and e.dump_id not in left_out]

    return Selection(
        whole=whole,
        relations=asked,
        loaded=tuple(loaded),
        definitions=tuple(e.dump_id for e in ids(PRE_DATA)),
        early=tuple(e.dump_id for e in ids(POST_DATA) if e.dump_id in early),
        rows=tuple(
            e.dump_id
            for e in ids(DATA)
            if whole or e.desc == "SEQUENCE SET" or e.dump_id in wanted_rows or e.dump_id in large_objects
        ),
        late=tuple(e.dump_id for e in ids(POST_DATA) if e.dump_id not in early and (whole or e not in views)),
        unread_views=() if whole else tuple(views),
        left_out=tuple(e for e in archive.entries if e.dump_id in left_out),
    )


def _may_name_large_objects(archive: Archive, tables: Iterable[Entry]) -> bool:
    """Whether a column is of type oid, of ``lo``, which an extension makes, or of a type made of these.

    It may be defined by what the table needs: the table it inherits from, the type it is of, a domain over a domain.
    A dump has all large objects in one or few pieces, and does not say which of them rows name.
    """
    definers = {entry.dump_id: entry for entry in archive.entries if entry.desc in ("TABLE", "TYPE", "DOMAIN")}
    reached: set[int] = set()
    waiting = [table.dump_id for table in tables]
    while waiting:
        dump_id = waiting.pop()
        if dump_id in definers and dump_id not in reached:
            reached.add(dump_id)
            waiting += definers[dump_id].deps
    return any(NAMES_LARGE_OBJECTS.search(definers[dump_id].defn) for dump_id in reached)


def roles_named(archive: Archive) -> dict[str, bool]:
    """Every role the dump's definitions name, and whether it must be a superuser there."""
    roles: dict[str, bool] = {}
    for entry in archive.entries:
        if entry.owner:
            roles[entry.owner] = roles.get(entry.owner, False) or entry.desc in SUPERUSER_OWNED
        place = ROLE_PLACES.get(entry.desc)
        for match in place.finditer(entry.defn) if place else ():
            for role in parse_schema_list([text for text in match.groups() if text]):
                if role not in NO_ROLES:
                    roles.setdefault(role, False)
    return roles


def tablespaces_named(archive: Archive) -> list[str]:
    """Every tablespace the dump's items want to be in, the database's own included."""
    names = {entry.tablespace for entry in archive.entries if entry.tablespace}
    for entry in archive.entries:
        if entry.desc == "DATABASE":
            names |= set(parse_schema_list(re.findall(rf"\bTABLESPACE = ({IDENT})", entry.defn)))
    return sorted(names - {"pg_default"})


def database_properties(archive: Archive) -> dict[str, str]:
    """Encoding and locales of the dumped database, from its CREATE DATABASE statement."""
    statement = next(entry.defn for entry in archive.entries if entry.desc == "DATABASE")
    found = dict(re.findall(r"\b(ENCODING|LOCALE|LC_COLLATE|LC_CTYPE) = '((?:[^']|'')*)'", statement))
    both = found.get("LOCALE", "")
    return {
        "encoding": found.get("ENCODING", ""),
        "lc_collate": found.get("LC_COLLATE", both),
        "lc_ctype": found.get("LC_CTYPE", both),
    }


def check_locales(properties: dict[str, str], host: str) -> None:
    """Refuse when the host does not have the locale of the dumped database."""
    for category, option in ((locale.LC_COLLATE, "lc_collate"), (locale.LC_CTYPE, "lc_ctype")):
        name, before = properties[option], locale.setlocale(category)
        try:
            locale.setlocale(category, name or before)
        except locale.Error:
            raise RecoveryError(
                f"the dumped database has locale {name!r}, which {host} does not have. Nothing was changed. "
                f"Make it there (Debian: add it to /etc/locale.gen and run locale-gen), or use another host."
            ) from None
        finally:
            locale.setlocale(category, before)


def creation_time(archive: Archive, utc_offset: Optional[str], modified: float) -> datetime:
    """When the dump was begun, with a numeric offset.

    The archive holds the dumping host's wall clock without a zone, so it counts as this host's zone unless
    ``utc_offset`` (``+02:00``) says otherwise. ``modified`` is the file's modification time in seconds since the
    epoch; a dump cannot have been begun after its file was written, and then the zone is wrong and must be said.
    """
    if utc_offset:
        match = re.fullmatch(r"([+-])(\d\d):?(\d\d)", utc_offset)
        if match is None:
            raise RecoveryError(f"utc_offset is {utc_offset!r}; write a numeric offset such as +02:00 or -05:30.")
        sign = -1 if match.group(1) == "-" else 1
        zone = timezone(sign * timedelta(hours=int(match.group(2)), minutes=int(match.group(3))))
        created = archive.wall_time.replace(tzinfo=zone)
    else:
        created = archive.wall_time.replace(fold=0 if archive.summer_time else 1).astimezone()
    if created.timestamp() > modified + 60:
        raise RecoveryError(
            f"the dump {archive.path} says it was begun at {archive.wall_time} by the dumping host's clock, which as "
            f"{created.isoformat()} lies after its file was written "
            f"({datetime.fromtimestamp(modified, timezone.utc).isoformat(timespec='seconds')}). Dumps record no time "
            "zone. Nothing was changed. Say the dumping host's offset with utc_offset "
            "(postgresql_logical_restore_utc_offset), such as +02:00."
        )
    return created


def check_version(archive: Archive, major: int, host: str) -> None:
    """Refuse a dump of a newer server, or one written by a newer pg_dump, than the programs that must read it."""
    for what, version in (("of a server of version", archive.server_version), ("by pg_dump", archive.dump_version)):
        if major_number(version) > major:
            raise RecoveryError(
                f"the dump {archive.path} was made {what} {version}, but the programs on {host} and production are of "
                f"version {major}, which cannot read it. Nothing was changed. Name a dump made with version {major} "
                "or older, or use a host with the newer version and put the rows back by hand.",
                dump_version=version,
                major_version=major,
            )


def major_number(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 0


def disk_needed(archive: Archive, selection: Selection) -> dict[str, Any]:
    """Bytes of the chosen rows in the dump and an estimate of what they need on disk (``{in_dump, needed, known}``).

    ``known`` is false where pg_dump wrote into a pipe and so could not note where each table begins; then the
    estimate is for all of the dump.
    """
    sizes = data_sizes(archive)
    chosen = [sizes.get(dump_id) for dump_id in selection.rows if dump_id in sizes]
    known = None not in chosen
    in_dump = sum(size or 0 for size in chosen) if known and not selection.whole else archive.size
    return {"in_dump": in_dump, "needed": INSTANCE_BYTES + in_dump * GROWTH[archive.compression], "known": known}


def bytes_done(
    archive: Archive, items: Iterable[int], finished: Iterable[int], positions: Iterable[tuple[str, int]]
) -> int:
    """How many bytes of the items' data pg_restore has read.

    ``finished`` are the dump ids it has done with; ``positions`` are (file, offset) of what its processes have open.
    """
    sizes = data_sizes(archive)
    over = set(finished)
    done = sum(sizes.get(item) or 0 for item in items if item in over)
    open_items = [entry for entry in archive.entries if entry.dump_id in set(items) - over and sizes.get(entry.dump_id)]
    for file, offset in positions:
        for entry in open_items:
            size = sizes[entry.dump_id] or 0
            if archive.format == "custom":
                read = offset - (entry.position or 0) if file == archive.path else -1
            else:
                read = offset if entry.file and os.path.basename(file).startswith(entry.file) else -1
            if 0 <= read <= size:
                done += read
                break
    return done
