# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import (
    OTHERS,
    is_harmless_type,
    objects_with_constants,
)

# Descriptions of entries that begin with another description; the longest that fits is the entry's
# (ArchiveEntry() calls in src/bin/pg_dump/pg_dump.c).
DESCRIPTIONS = (
    "ACCESS METHOD|ACL|AGGREGATE|CAST|CHECK CONSTRAINT|COLLATION|COMMENT|CONSTRAINT|CONVERSION|DATABASE PROPERTIES|"
    "DATABASE|DEFAULT ACL|DEFAULT|DOMAIN|ENCODING|EVENT TRIGGER|EXTENSION|FK CONSTRAINT|FOREIGN DATA WRAPPER|"
    "FOREIGN SERVER|FOREIGN TABLE|FUNCTION|INDEX ATTACH|INDEX|MATERIALIZED VIEW|OPERATOR CLASS|OPERATOR FAMILY|"
    "OPERATOR|POLICY|PROCEDURAL LANGUAGE|PROCEDURE|PUBLICATION TABLES IN SCHEMA|PUBLICATION TABLE|PUBLICATION|"
    "ROW SECURITY|RULE|SCHEMA|SEARCHPATH|SECURITY LABEL|SEQUENCE OWNED BY|SEQUENCE|SERVER|SHELL TYPE|STATISTICS|"
    "STDSTRINGS|SUBSCRIPTION TABLE|SUBSCRIPTION|TABLE ATTACH|TABLE|TEXT SEARCH CONFIGURATION|TEXT SEARCH DICTIONARY|"
    "TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE|TRANSFORM|TRIGGER|TYPE|USER MAPPING|VIEW"
)
ENTRY = re.compile(rf"(\d+); (\d+) (\d+) ({DESCRIPTIONS})(?: |$)(.*)", re.DOTALL)
# What no restore of objects asks for: settings of the dump itself, and what is data.
SETTINGS = ("ENCODING", "SEARCHPATH", "STDSTRINGS")
DEPENDS = re.compile(r";\s+depends on:((?: \d+)+)")
# The settings that a script begins with. Its timeouts and search_path would undo ours.
HEADER = re.compile(rb"\A(?:(?:--.*|\\restrict .*|SET (?!ROLE ).*;|SELECT pg_catalog\.set_config\(.*\);)?\n)*")
OURS = re.compile(
    rb"^(?:SET (?:statement|lock|idle_in_transaction_session|transaction)_timeout = 0;"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);)\n",
    re.MULTILINE,
)
# Grants in the name of those who made them: only superusers may change the session's user, members the current one.
SESSION_USER = re.compile(rb"^(?:SET SESSION AUTHORIZATION (.*)|RESET SESSION AUTHORIZATION);$", re.MULTILINE)
GRANTS = ("ACL", "DEFAULT ACL")
# Added around scripts by the releases of August 2025 and later; only psql knows it.
RESTRICT = re.compile(rb"^\\(?:un)?restrict ([0-9A-Za-z]+)\n?", re.MULTILINE)

# Entries without an object of their own: they belong to the objects they depend on.
APPENDAGES = (
    "ACL",
    "COMMENT",
    "INDEX ATTACH",
    "ROW SECURITY",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SHELL TYPE",
    "TABLE ATTACH",
)


# To make these, the server runs parts of their expressions: what is constant in a partition key or a generated column,
# the bounds of a partition with its rows, the check of all rows.
# Of a superuser's table the server runs what an index on it computes as a superuser, too.
RUNNING_AS_SUPERUSER = ("INDEX", "CONSTRAINT")
RUNNING = ("TABLE", "TABLE ATTACH", "DEFAULT", "CHECK CONSTRAINT", "FK CONSTRAINT", "STATISTICS")
CODE = ("FUNCTION", "PROCEDURE", "AGGREGATE")


class RunAs(NamedTuple):
    """Whom an entry is made as: a role, the schema it is made in, and the table (SQL) that a foreign key points to.

    He may lack rights on ``tablespace`` and on ``schemas`` of what the entry needs, which he or a superuser once used.
    Where it uses code ``of_others``, a superuser's entries are made by a role that owns its ``tables`` (SQL) instead.
    """

    role: str
    schema: str
    referenced: Optional[str]
    tablespace: Optional[str]
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    of_others: bool = False


OWNERS = """
WITH tables AS (
  SELECT c.oid, pg_catalog.pg_get_userbyid(c.relowner) AS role, n.nspname AS schema, s.spcname AS tablespace,
         CASE WHEN c.relkind IN ('i', 'I') THEN i.indrelid ELSE c.oid END::regclass::text AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
)
SELECT 'pg_catalog.pg_class'::regclass::oid::int8 AS catalog, oid::int8 AS oid, role, schema, NULL AS referenced,
       tablespace, name
FROM tables
UNION ALL
SELECT 'pg_catalog.pg_constraint'::regclass::oid::int8, k.oid::int8, t.role, t.schema,
       CASE WHEN k.contype = 'f' THEN k.confrelid::regclass::text END, i.tablespace, t.name
FROM pg_catalog.pg_constraint k JOIN tables t ON t.oid = k.conrelid
LEFT JOIN tables i ON i.oid = k.conindid AND k.contype IN ('p', 'u', 'x')
UNION ALL
SELECT 'pg_catalog.pg_attrdef'::regclass::oid::int8, d.oid::int8, role, schema, NULL, NULL, t.name
FROM pg_catalog.pg_attrdef d JOIN tables t ON t.oid = d.adrelid
UNION ALL
SELECT 'pg_catalog.pg_trigger'::regclass::oid::int8, g.oid::int8, role, schema, NULL, NULL, t.name
FROM pg_catalog.pg_trigger g JOIN tables t ON t.oid = g.tgrelid
UNION ALL
SELECT 'pg_catalog.pg_policy'::regclass::oid::int8, p.oid::int8, role, schema, NULL, NULL, t.name
FROM pg_catalog.pg_policy p JOIN tables t ON t.oid = p.polrelid
UNION ALL
SELECT 'pg_catalog.pg_rewrite'::regclass::oid::int8, r.oid::int8, role, schema, NULL, NULL, t.name
FROM pg_catalog.pg_rewrite r JOIN tables t ON t.oid = r.ev_class
UNION ALL
SELECT 'pg_catalog.pg_statistic_ext'::regclass::oid::int8, s.oid::int8, pg_catalog.pg_get_userbyid(s.stxowner),
       n.nspname, NULL, NULL, s.stxrelid::regclass::text
FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
UNION ALL
SELECT 'pg_catalog.pg_proc'::regclass::oid::int8, p.oid::int8, pg_catalog.pg_get_userbyid(p.proowner), n.nspname, NULL,
       NULL, NULL
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
UNION ALL
SELECT 'pg_catalog.pg_type'::regclass::oid::int8, y.oid::int8, pg_catalog.pg_get_userbyid(y.typowner), n.nspname, NULL,
       NULL, NULL
FROM pg_catalog.pg_type y JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
"""


OTHER_ROLES = f"SELECT rolname AS name FROM pg_catalog.pg_roles WHERE oid IN ({OTHERS})"


class Entry(NamedTuple):
    """One entry of a dump's table of contents; ``depends`` are dump ids."""

    dump_id: int
    catalog: int
    oid: int
    description: str
    label: str
    depends: tuple[int, ...]


def parse_toc(listing: str) -> list[Entry]:
    """Entries, in the order of the dump, of what ``pg_restore --list --verbose`` prints.

    Format: PrintTOCSummary() in src/bin/pg_dump/pg_backup_archiver.c: ``<dump id>; <catalog oid> <oid> <description>
    <schema> <name> <owner>``, then with --verbose ``;\tdepends on: <dump ids>``. Raises RecoveryError on a line of
    neither form.
    """
    entries: list[Entry] = []
    # A name may hold what str.splitlines() takes for an end of line (VT, FF, U+0085, U+2028), but no newline.
    for line in listing.split("\n"):
        depends = DEPENDS.match(line)
        if depends is not None and entries:
            entries[-1] = entries[-1]._replace(depends=tuple(int(dump_id) for dump_id in depends.group(1).split()))
            continue
        if line.startswith(";") or not line.strip():
            continue
        match = ENTRY.match(line)
        if match is None:
            raise RecoveryError(f"pg_restore --list printed a line that cannot be read: {line!r}")
        dump_id, catalog, oid = (int(match.group(number)) for number in (1, 2, 3))
        entries.append(Entry(dump_id, catalog, oid, match.group(4), match.group(5), ()))
    return entries


def select_entries(entries: Sequence[Entry], wanted: Collection[tuple[int, int]]) -> list[Entry]:
    """Entries of the ``wanted`` objects ``(catalog oid, oid)`` and what is appended to them, in the dump's order.

    An appendage (comment, grant, attachment ...) goes with its object. TABLE ATTACH and INDEX ATTACH go with the part
    that is attached; ROW SECURITY carries its table's OID; a SHELL TYPE goes with what depends on it.
    """
    relations = {oid for unused, oid in wanted}
    own = {entry.dump_id for entry in entries if entry.catalog and (entry.catalog, entry.oid) in wanted}
    chosen = set(own)
    needed_by_own = {dump_id for entry in entries if entry.dump_id in own for dump_id in entry.depends}
    for entry in entries:
        if entry.description not in APPENDAGES or entry.catalog:
            continue
        if entry.description == "SHELL TYPE":
            belongs = entry.dump_id in needed_by_own
        elif entry.oid:
            belongs = entry.oid in relations and any(dump_id in own for dump_id in entry.depends)
        else:
            belongs = any(dump_id in own for dump_id in entry.depends)
        if belongs:
            chosen.add(entry.dump_id)
    return [entry for entry in entries if entry.dump_id in chosen]


def needed_for(entries: Sequence[Entry], roots: Iterable[int]) -> set[int]:
    """Dump ids of ``roots`` and of all that they need among ``entries``, through any number of steps."""
    by_id = {entry.dump_id: entry for entry in entries}
    needed: set[int] = set()
    waiting = [dump_id for dump_id in roots if dump_id in by_id]
    while waiting:
        dump_id = waiting.pop()
        if dump_id not in needed:
            needed.add(dump_id)
            waiting.extend(other for other in by_id[dump_id].depends if other in by_id)
    return needed


def needing(entries: Sequence[Entry], roots: Collection[int]) -> set[int]:
    """Dump ids of ``entries`` that need one of ``roots`` through any number of steps."""
    users: dict[int, list[int]] = {}
    for entry in entries:
        for dump_id in entry.depends:
            users.setdefault(dump_id, []).append(entry.dump_id)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for dump_id in users.get(waiting.pop(), []):
            if dump_id not in found:
                found.add(dump_id)
                waiting.append(dump_id)
    return found


def running_entries(
    entries: Sequence[Entry],
    harmful: Collection[int] = (),
    with_constants: Collection[tuple[int, int]] = (),
    code: Collection[int] | None = None,
) -> list[Entry]:
    """Those of all ``entries`` of a dump that cannot be made without running functions of users.

    ``harmful`` are dump ids of domains whose checks call what does harm, though only functions of the server. Constants
    of a type with a domain in it are read when a definition is parsed, and that runs the domain's check. What such
    a type is by then only production knows, so that all ``with_constants`` of users' types are among them, see
    :func:`objects_with_constants`; the constants of a partition stand where it is attached. With ``code``, the dump ids
    of functions of others, what runs these although its owner is a superuser.
    """
    functions = {entry.dump_id for entry in entries if entry.description in CODE}
    near = needing(entries, functions if code is None else functions.intersection(code))
    domains = {entry.dump_id for entry in entries if entry.description == "DOMAIN" and entry.dump_id in near}
    domains |= set(harmful)
    nearer = needing(entries, domains)
    # A foreign key is checked by a query on both tables, which runs parts of their index expressions.
    keys = {entry.dump_id for entry in entries if entry.description == "FK CONSTRAINT" and near}
    reading = {entry.dump_id for entry in entries if (entry.catalog, entry.oid) in with_constants}
    nearer |= reading
    nearer |= {entry.dump_id for entry in entries if entry.description == "TABLE ATTACH" and reading & {*entry.depends}}
    running = near | nearer | keys
    runs = RUNNING if code is None else (*RUNNING, *RUNNING_AS_SUPERUSER)
    return [entry for entry in entries if entry.dump_id in (running if entry.description in runs else nearer)]


def strip_restrict(script: bytes) -> bytes:
    r"""The script without the ``\restrict`` and ``\unrestrict`` lines of its own key (nobody else's lines)."""
    first = RESTRICT.search(script)
    if first is None:
        return script
    key = re.escape(first.group(1))
    return re.sub(rb"^\\(?:un)?restrict " + key + rb"$\n?", b"", script, flags=re.MULTILINE)


def without_our_settings(script: bytes) -> bytes:
    """The script without the timeouts and the search_path that it sets; the session has set what it needs."""
    header = HEADER.match(script)
    end = header.end() if header else 0
    return OURS.sub(b"", script[:end]) + script[end:]


def as_members(script: bytes) -> bytes:
    """A script of grants that acts for other roles as a member of theirs."""
    return SESSION_USER.sub(lambda found: b"SET ROLE " + found[1] + b";" if found[1] else b"RESET ROLE;", script)


def statements_of(script: bytes) -> str:
    """What a script does, without its settings and comments at both ends."""
    header = HEADER.match(script)
    text = script[header.end() if header else 0 :].decode(errors="surrogateescape")
    return re.sub(r"(?:\n|\A)(?:--.*\n|\n)*\Z", "", text)


class SchemaDump:
    """All definitions of one database of the recovered instance, as pg_dump writes them, in a custom archive."""

    def __init__(self, server: Server, database: str, directory: str) -> None:
        self._server = server
        self._database = database
        self.path = os.path.join(directory, "schema.dump")
        # Threads that load side by side take the next number.
        self._lists = itertools.count(1)
        # Entries (catalog oid, oid) that are made in the default tablespace, since theirs is gone.
        self.without_home: set[tuple[int, int]] = set()
        # By the dump ids of their entries and what else makes them.
        self._scripts: dict[tuple[Any, ...], bytes] = {}
        encoding = f"--encoding={server.client_encoding(database)}"
        command = ["pg_dump", "--format=custom", "--compress=0", "--schema-only", encoding, "--no-password"]
        server.run([*command, "--no-sync", "--file", self.path], database)
        listing = server.run(["pg_restore", "--list", "--verbose", self.path], database)
        self.entries = parse_toc(listing.decode(errors="surrogateescape"))

    @functools.cached_property
    def run_as(self) -> dict[int, RunAs]:
        """Whom the entries are made as that cannot be made without running functions of users, by dump id."""
        connection = self._server.connect(self._database)
        try:
            domains = [entry for entry in self.entries if entry.description == "DOMAIN"]
            harmful = {entry.dump_id for entry in domains if not is_harmless_type(connection, entry.oid, written=False)}
            running = running_entries(self.entries, harmful, objects_with_constants(connection))
            if not running:
                return {}
            known = {
                (row["catalog"], row["oid"]): RunAs(
                    row["role"], row["schema"], row["referenced"], row["tablespace"], tables=(row["name"],)
                )
                for row in rows(connection, OWNERS)
            }
            by_id = {entry.dump_id: known.get((entry.catalog, entry.oid)) for entry in self.entries}
            of_others = {entry.dump_id: entry for entry in self._running_code_of_others(connection, by_id)}
        finally:
            connection.close()
        found = {}
        for entry in {**{entry.dump_id: entry for entry in running}, **of_others}.values():
            # An attachment has no object of its own, but belongs to the tables it needs.
            whose = [by_id.get(dump_id) for dump_id in (entry.dump_id, *entry.depends)]
            owner = next((item for item in whose if item is not None), None)
            if owner is not None:
                items = [item for item in whose if item is not None]
                attached = items if entry.description in ("TABLE ATTACH", "INDEX ATTACH") else items[:1]
                found[entry.dump_id] = owner._replace(
                    schemas=tuple(sorted({item.schema for item in items} - {owner.schema})),
                    tables=tuple(sorted({name for item in attached for name in item.tables if name})),
                    of_others=entry.dump_id in of_others,
                )
                if (entry.catalog, entry.oid) in self.without_home:
                    found[entry.dump_id] = found[entry.dump_id]._replace(tablespace=None)
        return found

    def _running_code_of_others(self, connection: Any, by_id: Mapping[int, RunAs | None]) -> list[Entry]:
        """What cannot be made without running functions of others than us and superusers."""
        others = {row["name"] for row in rows(connection, OTHER_ROLES)}
        theirs = {dump_id for dump_id, whom in by_id.items() if whom is not None and whom.role in others}
        domains = {entry.dump_id for entry in self.entries if entry.description == "DOMAIN"} & theirs
        constants = objects_with_constants(connection, of_others=True)
        running = running_entries(self.entries, domains, constants, theirs)
        always = (*RUNNING, *RUNNING_AS_SUPERUSER)
        return [one for one in running if one.description in always or (one.catalog, one.oid) in constants]

    def identity(self, entry: Entry) -> str:
        """What the server calls the object of an entry; the dump's own words where there is none."""
        query = "SELECT identity FROM pg_catalog.pg_identify_object(%s, %s, 0)"
        connection = self._server.connect(self._database)
        try:
            return value(connection, query, (entry.catalog, entry.oid)) if entry.catalog else entry.label
        finally:
            connection.close()

    def script(self, entries: Iterable[Entry], *options: str) -> bytes:
        """SQL that makes ``entries`` (but grants), in the dump's order; ``options`` are pg_restore's."""
        return self._script([entry for entry in entries if entry.description not in GRANTS], options)

    def grants(self, entries: Iterable[Entry], *options: str) -> bytes:
        """SQL of the grants among ``entries``, which come after everything that is granted."""
        return as_members(self._script([entry for entry in entries if entry.description in GRANTS], options))

    def _script(self, entries: Iterable[Entry], options: Sequence[str]) -> bytes:
        homes = itertools.groupby(entries, lambda entry: (entry.catalog, entry.oid) in self.without_home)
        return b"".join(
            self._restore_to_text(list(group), [*options, *(["--no-tablespaces"] if without_home else [])])
            for without_home, group in homes
        )

    def _restore_to_text(self, entries: Sequence[Entry], options: Sequence[str]) -> bytes:
        chosen = [f"{entry.dump_id}; {entry.catalog} {entry.oid} {entry.description}" for entry in entries]
        known = (*chosen, *options)
        if not chosen:
            return b""
        if known in self._scripts:
            return self._scripts[known]
        path = f"{self.path}.{next(self._lists)}.list"
        with open(path, "w") as file:
            file.write("\n".join(chosen) + "\n")
        command = ["pg_restore", "--use-list", path, "--file=-", *options, self.path]
        self._scripts[known] = without_our_settings(strip_restrict(self._server.run(command, self._database)))
        return self._scripts[known]


def entries_of(entries: Sequence[Entry], objects: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Like :func:`select_entries`, for objects of a closure."""
    return select_entries(entries, {(item["classid"], item["objid"]) for item in objects if not item["objsubid"]})
