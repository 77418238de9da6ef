# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and keys that can be built while production writes, by what must be built together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import is_another
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import Steps
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry, SchemaDump

# What can be built so: not a constraint of exclusion, nor what is on a materialized view.
DEFINITIONS = """
SELECT CASE WHEN k.oid IS NULL THEN 'INDEX' ELSE 'CONSTRAINT' END AS description,
       coalesce(k.oid, i.indexrelid)::int8 AS oid, n.nspname AS schema, c.relname AS name, tn.nspname AS table_schema,
       t.relname AS table, t.relkind = 'p' AS partitioned, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
       s.spcname AS tablespace, k.contype AS key, k.conname, k.condeferrable, k.condeferred,
       pg_catalog.pg_get_constraintdef(k.oid) AS constraint_definition,
       i.indisclustered AS clustered, i.indisreplident AS identity
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE (i.indexrelid = ANY(%s::oid[]) AND k.oid IS NULL OR k.oid = ANY(%s::oid[])) AND NOT i.indisexclusion
"""
# What may hang on an index or a key that is built late.
HANGING = ("COMMENT", "INDEX ATTACH")


class Build(NamedTuple):
    """One index or key of a table: its entry of the dump, and what the recovered instance says of it."""

    entry: Entry
    name: str
    """SQL name."""
    table: str
    """SQL name."""
    partitioned: bool
    """Whether it is only made of those of partitions."""
    definition: str
    tablespace: str
    key: str
    """The statement that makes the key of the index; empty for what is no key."""
    primary: bool
    more: tuple[str, ...]
    """Further statements that describe the index of a key."""
    constraint: str = ""
    """What the server says of the key."""

    @property
    def statement(self) -> str:
        """What builds the index."""
        words = self.definition.split(" INDEX ", 1)
        return f"{words[0]} INDEX CONCURRENTLY {words[1]}"

    @property
    def command(self) -> str:
        """What makes all of it, each statement by itself."""
        return f"{self.statement};\n{self.key};" if self.key else f"{self.statement};"


class Group(NamedTuple):
    """What is built together: an index or a key, or those of a whole partitioned table, and what hangs on them."""

    members: list[Entry]
    hanging: list[Entry]
    foreign_keys: list[Entry]
    after: list[Entry]
    """Comments on the foreign keys."""

    @property
    def entries(self) -> list[Entry]:
        """All of them."""
        return [*self.members, *self.hanging, *self.foreign_keys, *self.after]


def _tied(entries: Sequence[Entry], chosen: Sequence[Entry]) -> dict[int, int]:
    """For each of ``chosen`` one of those that it is tied to, the same for all of these; by dump ids.

    The index of a partition needs that of the table above it, and an attachment needs both.
    """
    first = {entry.dump_id: entry.dump_id for entry in chosen}
    for entry in entries:
        if entry.dump_id in first or entry.description == "INDEX ATTACH":
            tied = {first[dump_id] for dump_id in (entry.dump_id, *entry.depends) if dump_id in first}
            first.update({dump_id: min(tied) for dump_id, other in first.items() if other in tied})
    return first


def groups_of(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Group]:
    """Indexes and keys among ``others`` by what must be built together, but what anything else of ``entries`` needs.

    Only comments, attachments and foreign keys may need them.
    """
    first = _tied(entries, [entry for entry in others if entry.description in ("INDEX", "CONSTRAINT")])
    found = {dump_id: Group([], [], [], []) for dump_id in first.values()}
    needed: set[int] = set()
    of_keys: dict[int, set[int]] = {}
    for entry in entries:
        above = {first[dump_id] for dump_id in entry.depends if dump_id in first}
        if entry.dump_id in first:
            found[first[entry.dump_id]].members.append(entry)
        elif entry.description == "FK CONSTRAINT":
            of_keys[entry.dump_id] = above
            # What needs two groups cannot follow one of them.
            needed |= above if len(above) > 1 else set()
            for dump_id in above:
                found[dump_id].foreign_keys.append(entry)
        elif entry.description in HANGING:
            for dump_id in above:
                found[dump_id].hanging.append(entry)
            for dump_id in {dump_id for key in entry.depends for dump_id in of_keys.get(key, ())}:
                found[dump_id].after.append(entry)
        else:
            needed |= above
    return [group for dump_id, group in found.items() if dump_id not in needed]


def part_of(attachment: Entry, members: Sequence[Entry]) -> tuple[Entry, Entry]:
    """The index or key among ``members`` that is attached, and the one that it becomes part of.

    An attachment needs both, and for keys those further up, in any order; each needs the one above it.
    """
    ends = [entry for entry in members if entry.dump_id in attachment.depends]
    needed = {dump_id for entry in ends for dump_id in entry.depends}
    lower = next(entry for entry in ends if entry.dump_id not in needed)
    return lower, next(entry for entry in ends if entry.dump_id in lower.depends)


def find_builds(context: Context, dump: SchemaDump, steps: Steps) -> tuple[list[Group], dict[int, Build]]:
    """What of ``steps`` can be built while production writes, and its indexes and keys by dump id.

    What is planned and what is done agree on it here.
    """
    every = [*steps.own, *steps.others, *steps.foreign_keys, *steps.after_foreign_keys]
    # What runs code of users while it is read is made as its owner, which only a transaction can be.
    caged = _caged(context.production, dump)
    possible = [
        group
        for group in groups_of(every, steps.others)
        if caged.isdisjoint(entry.dump_id for entry in [*group.members, *group.hanging])
    ]
    entries = {(entry.description, entry.oid): entry for group in possible for entry in group.members}
    oids = [[oid for kind, oid in entries if kind == wanted] for wanted in ("INDEX", "CONSTRAINT")]
    builds: dict[int, Build] = {}
    if entries:
        session = context.side.connect(context.side_database)
        try:
            found = rows(session, DEFINITIONS, tuple(oids))
        finally:
            session.close()
        for item in found:
            entry = entries[item["description"], item["oid"]]
            lost_space = (entry.catalog, entry.oid) in dump.without_home
            builds[entry.dump_id] = build_of(entry, item, "" if lost_space else item["tablespace"] or "")
    return [group for group in possible if builds.keys() >= {entry.dump_id for entry in group.members}], builds


def _caged(server: Server, dump: SchemaDump) -> set[int]:
    """Dump ids of what is made as another than we or a superuser."""
    production = server.connect()
    try:
        others = {role for role in {whom.role for whom in dump.run_as.values()} if is_another(production, role)}
    finally:
        production.close()
    return {dump_id for dump_id, whom in dump.run_as.items() if whom.of_others or whom.role in others}


def build_of(entry: Entry, item: Mapping[str, Any], tablespace: str) -> Build:
    """What one row of ``DEFINITIONS`` says."""
    name, table = quote_name(item["schema"], item["name"]), quote_name(item["table_schema"], item["table"])
    key, more = "", []
    if item["key"]:
        key = f"ALTER TABLE ONLY {table} ADD CONSTRAINT {quote_ident(item['conname'])} "
        key += f"{'PRIMARY KEY' if item['key'] == 'p' else 'UNIQUE'} USING INDEX {quote_ident(item['name'])}"
        key += " DEFERRABLE" if item["condeferrable"] else ""
        key += " INITIALLY DEFERRED" if item["condeferred"] else ""
        more += [f"ALTER TABLE {table} CLUSTER ON {quote_ident(item['name'])}"] if item["clustered"] else []
        if item["identity"]:
            more.append(f"ALTER TABLE ONLY {table} REPLICA IDENTITY USING INDEX {quote_ident(item['name'])}")
    return Build(
        entry,
        name,
        table,
        item["partitioned"],
        item["definition"],
        tablespace,
        key,
        item["key"] == "p",
        tuple(more),
        item["constraint_definition"] or "",
    )
