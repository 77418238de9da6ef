# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import rows_that
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements, server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import execute_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import runs_others_code
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import is_passing, savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import Part, make_parts, printed
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish_locks import locks_to_attach
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import (
    SETTINGS,
    Entry,
    RunAs,
    entries_of,
    needed_for,
)

# Parts of surviving tables that a dump writes inside CREATE TABLE, so that they have no entry of their own.
INLINE_DEFAULTS = """
SELECT d.oid::int8 AS oid, n.nspname AS schema, c.relname AS table, a.attname AS name,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS definition
FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = ''
WHERE d.oid = ANY(%s::oid[])
"""
INLINE_CHECKS = """
SELECT k.oid::int8 AS oid, n.nspname AS schema, c.relname AS table, k.conname AS name,
       pg_catalog.pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated,
       pg_catalog.pg_get_expr(k.conbin, k.conrelid) AS condition
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.oid = ANY(%s::oid[]) AND k.contype = 'c' AND k.coninhcount = 0
"""


# From the top of each tree down.
IDENTITIES = """
SELECT n.nspname AS schema, c.relname AS table, pn.nspname AS parent_schema, p.relname AS parent,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '')
         AS columns
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.oid = ANY(%s::oid[]) AND c.relispartition
  AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '')
ORDER BY (SELECT count(*) FROM pg_catalog.pg_partition_ancestors(c.oid)), c.oid
"""
LIVING_PARENTS = """
SELECT n.nspname AS schema, p.relname AS name, p.oid::int8 AS parent, c.oid::int8 AS part, cn.nspname AS part_schema
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
WHERE i.inhrelid = ANY(%s::oid[]) AND NOT i.inhparent = ANY(%s::oid[])
"""
# Partitioned tables whose key holds more than columns of the server's own types.
KEYS_OF_USERS = """
SELECT name, c.oid::int8 AS oid, pg_catalog.pg_get_userbyid(c.relowner) AS owner FROM unnest(%s::text[]) AS name
JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = pg_catalog.to_regclass(name)
JOIN pg_catalog.pg_class c ON c.oid = p.partrelid
WHERE p.partexprs IS NOT NULL OR EXISTS (
  SELECT FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = p.partrelid AND a.attnum = ANY(p.partattrs::int2[]) AND a.atttypid >= 16384)
"""
KEYS_TO = """
SELECT DISTINCT k.confrelid::int8 AS oid FROM pg_catalog.pg_constraint k
WHERE k.contype = 'f' AND k.conrelid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(%s::text[]) AS name)
"""
PARTITION_NAMES = (("schema", "table"), ("parent_schema", "parent"))
ATTACHED = """
SELECT 1 FROM pg_catalog.pg_inherits
WHERE inhrelid = pg_catalog.to_regclass(%s) AND inhparent = pg_catalog.to_regclass(%s)
"""
UNMARKED = """
SELECT 1 FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = ANY(%s) AND attidentity = '' LIMIT 1
"""


UNVALIDATED = """
SELECT NOT convalidated FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s AND contype = 'c'
"""


class Steps(NamedTuple):
    """A dump's entries by the moment they are made in production."""

    early: list[Entry]
    """In staging: the tables and what their columns, sequences and indexes need."""
    indexes: dict[int, list[Entry]]
    """Indexes and index-backed constraints of each table that is loaded, by table OID."""
    own: list[Entry]
    """When publishing: the rest of what touches only things that were lost."""
    others: list[Entry]
    """When publishing, last: what locks tables that production uses."""
    foreign_keys: list[Entry]
    after_foreign_keys: list[Entry]


def arrange(
    dump: Sequence[Entry], objects: Sequence[Mapping[str, Any]], loaded: Iterable[int], first: Sequence[str] = ()
) -> Steps:
    """Arrange the entries of ``objects`` (the closure's missing ones) out of a whole dump's; its order is kept.

    ``loaded`` are the OIDs of the tables whose rows are loaded; entries of the descriptions ``first`` come before.
    """
    entries = entries_of(dump, objects)
    wanted = {entry.dump_id for entry in entries}
    survivors = {entry.dump_id for entry in dump if entry.description == "TABLE" and entry.dump_id not in wanted}
    by_address = {(item["classid"], item["objid"]): item for item in objects}
    lost = {item["objid"] for item in objects if item["catalog"] == "pg_class"}
    lost_tables = lost - {entry.oid for entry in dump if entry.description == "VIEW"}
    tables = set(loaded)

    def table_of(entry: Entry) -> int | None:
        item = by_address.get((entry.catalog, entry.oid))
        return None if item is None else item["index_of"] or item["relation"]

    indexes: dict[int, list[Entry]] = {oid: [] for oid in tables}
    for entry in entries:
        table = table_of(entry)
        if entry.description in ("INDEX", "CONSTRAINT") and table in tables and table is not None:
            indexes[table].append(entry)
    in_worker = {entry.dump_id for chosen in indexes.values() for entry in chosen}

    roots = [
        entry.dump_id
        for entry in entries
        if entry.dump_id in in_worker
        or entry.description in ("SCHEMA", *first)
        or (entry.description in ("TABLE", "SEQUENCE") and table_of(entry) in lost)
        # A view can have defaults, too; it would stand there empty.
        or (entry.description == "DEFAULT" and table_of(entry) in lost_tables)
        or (entry.description == "SEQUENCE OWNED BY")
        or (entry.description == "TABLE ATTACH" and survivors.isdisjoint(entry.depends))
    ]
    early = needed_for(entries, roots) - in_worker
    keys = {entry.dump_id for entry in entries if entry.description == "FK CONSTRAINT"}
    others = {
        entry.dump_id
        for entry in entries
        if entry.dump_id not in keys
        and (
            (table_of(entry) is not None and table_of(entry) not in lost)
            or (entry.description in ("TABLE ATTACH", "INDEX ATTACH") and not survivors.isdisjoint(entry.depends))
        )
    }
    # Triggers that partitions get with those of their parents, when they are attached: they are only set otherwise.
    copied = {entry.dump_id for entry in entries if by_address.get((entry.catalog, entry.oid), {}).get("copied")}
    others |= copied
    steps = Steps([], indexes, [], [], [], [])
    for entry in entries:
        if entry.dump_id in in_worker:
            continue
        if entry.dump_id in keys:
            steps.foreign_keys.append(entry)
        elif entry.dump_id in others or (not entry.catalog and any(d in others for d in entry.depends)):
            steps.others.append(entry)
        elif not entry.catalog and any(dump_id in keys for dump_id in entry.depends):
            steps.after_foreign_keys.append(entry)
        elif entry.dump_id in early:
            steps.early.append(entry)
        else:
            steps.own.append(entry)
    steps.others.sort(key=lambda entry: bool(copied & {entry.dump_id, *entry.depends}))
    return steps


AFTER_DATA = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "CONSTRAINT",
        "DEFAULT ACL",
        "EVENT TRIGGER",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "POLICY",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
        "ROW SECURITY",
        "RULE",
        "STATISTICS",
        "SUBSCRIPTION",
        "SUBSCRIPTION TABLE",
        "TRIGGER",
    }
)


def is_of_database(entry: Entry) -> bool:
    """Whether an entry belongs to the database itself, not to what is in it."""
    return entry.description in ("DATABASE", "DATABASE PROPERTIES") or entry.label.startswith("- DATABASE ")


def arrange_database(
    entries: Sequence[Entry], index_tables: Mapping[tuple[int, int], int], loaded: Iterable[int]
) -> Steps:
    """Arrange all entries of a dump; ``index_tables`` are the tables of indexes and constraints by (catalog, OID)."""
    indexes: dict[int, list[Entry]] = {oid: [] for oid in loaded}
    steps = Steps([], indexes, [], [], [], [])
    late: set[int] = set()
    keys: set[int] = set()
    for entry in entries:
        if entry.description in SETTINGS or is_of_database(entry):
            continue
        table = index_tables.get((entry.catalog, entry.oid))
        if entry.description in ("INDEX", "CONSTRAINT") and table in indexes and table is not None:
            late.add(entry.dump_id)
            indexes[table].append(entry)
        elif entry.description == "FK CONSTRAINT":
            late.add(entry.dump_id)
            keys.add(entry.dump_id)
            steps.foreign_keys.append(entry)
        elif entry.description in AFTER_DATA or any(dump_id in late for dump_id in entry.depends):
            # A comment on a foreign key needs the key; event triggers must not fire on our own work.
            late.add(entry.dump_id)
            last = entry.description == "EVENT TRIGGER" or any(dump_id in keys for dump_id in entry.depends)
            (steps.after_foreign_keys if last else steps.own).append(entry)
        else:
            steps.early.append(entry)
    return steps


def forward(current: Mapping[str, Any], recovered: Mapping[str, Any]) -> tuple[int, bool] | None:
    """Value and is_called to set on a sequence so that it never goes back; None when it needs no change."""
    if fingerprint.is_behind({**recovered, **current}, recovered):
        return int(recovered["last_value"]), bool(recovered["is_called"])
    return None


def set_sequences(connection: Any, sequences: Iterable[Mapping[str, Any]]) -> None:
    """Bring production's sequences forward to the recovered instance's, never back."""
    for sequence in sequences:
        name = quote_name(sequence["schema"], sequence["name"])
        # Somebody may have put a view in its place, whose functions would run as we read it.
        is_one = "SELECT 1 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s) AND relkind = 'S'"
        if value(connection, is_one, (name,)) is None:
            continue
        target = forward(rows(connection, f"SELECT last_value, is_called FROM {name}")[0], sequence)
        if target is not None:
            execute(connection, "SELECT pg_catalog.setval(%s::regclass, %s, %s)", (name, *target))


class Attached:
    """Lost partitions of trees that are still there, whose foreign keys are checked when they are attached."""

    def __init__(self, context: Context, oids: Sequence[int]) -> None:
        side = context.side.connect(context.side_database)
        try:
            self._parents = rows(side, LIVING_PARENTS, (list(oids), list(oids)))
        finally:
            side.close()

    def locks(self, connection: Any) -> list[Lock]:
        """The locks under which they are attached."""
        return locks_to_attach(connection, self._names())

    def as_owners(self, connection: Any, entries: Sequence[Entry]) -> dict[int, RunAs]:
        """Whom some of ``entries`` of a dump are made as, by dump id: those that attach to what users' types divide.

        The bounds of a partition are read as what the key is by now, whatever it was: somebody may have made the table
        anew. Holds while the tables are locked.
        """
        keys = rows(connection, KEYS_OF_USERS, (self._names(),))
        owners = {row["name"]: row["owner"] for row in keys}
        trusting = {row["name"] for row in keys if runs_others_code(connection, row["oid"])}
        tables = {entry.oid: entry.dump_id for entry in entries if entry.description == "TABLE"}
        found = {}
        for item in self._parents:
            owner = owners.get(quote_name(item["schema"], item["name"]))
            if owner is not None:
                ends = {tables.get(item["parent"]), tables.get(item["part"])}
                parent = quote_name(item["schema"], item["name"])
                whom = RunAs(owner, item["schema"], None, None, (item["part_schema"],), (parent,), parent in trusting)
                attaching = (entry for entry in entries if entry.description == "TABLE ATTACH")
                found.update({entry.dump_id: whom for entry in attaching if ends <= {*entry.depends}})
        return found

    def _names(self) -> list[str]:
        return sorted({quote_name(item["schema"], item["name"]) for item in self._parents})

    def make(self, connection: Any, attach: Callable[[], None]) -> None:
        """Do what attaches them (and more), in the caller's transaction.

        The server checks as the one who attaches, not as itself. Where row security binds even the owners of the
        other tables, it is lifted for the time of this transaction, which locks those tables.
        """
        keys = rows(connection, KEYS_TO, (self._names(),))
        show, hide = force_statements(connection, [row["oid"] for row in keys])
        for statement in show:
            execute(connection, statement)
        attach()
        for statement in hide:
            execute(connection, statement)


class PartitionIdentities:
    """Identity columns of lost partitions, which since PostgreSQL 17 are those of the root of the tree.

    ATTACH PARTITION marks the columns of the partition, but not those of its own partitions: CreateInheritance() in
    src/backend/commands/tablecmds.c goes no further down. A lost subtree is attached from below.
    """

    def __init__(self, context: Context, oids: Sequence[int]) -> None:
        side = context.side.connect(context.side_database)
        try:
            self._partitions = rows(side, IDENTITIES, (list(oids),)) if side.server_version >= 170000 else []
        finally:
            side.close()

    def mend(self, connection: Any) -> list[dict[str, Any]]:
        """Attach again, from the top, what has no identity yet, in the caller's transaction; what cannot be."""
        parts = []
        for part in self._partitions:
            name, parent = (quote_name(part[schema], part[table]) for schema, table in PARTITION_NAMES)
            if value(connection, UNMARKED, (name, part["columns"])) and value(connection, ATTACHED, (name, parent)):
                shown = f"identity on {display_name(part['schema'], part['table'])}"
                again = f"ALTER TABLE {parent} DETACH PARTITION {name}; ALTER TABLE {parent} ATTACH PARTITION {name} "
                parts.append(Part("identity column", shown, again + part["bound"], parent))
        return make_parts(connection, parts)


class InlineParts:
    """Defaults and check constraints of surviving tables that went with a lost sequence, function or type."""

    def __init__(self, context: Context, entries: Sequence[Entry]) -> None:
        have = {(entry.catalog, entry.oid) for entry in entries}
        lost = {item["objid"] for item in context.plan["objects"] if item["catalog"] == "pg_class"}
        oids: dict[str, list[int]] = {"pg_attrdef": [], "pg_constraint": []}
        for item in context.plan["objects"]:
            if (
                item["catalog"] in oids
                and (item["classid"], item["objid"]) not in have
                and item["relation"] not in lost
            ):
                oids[item["catalog"]].append(item["objid"])
        self._incident: str = context.plan["incident"]
        side = context.side.connect(context.side_database)
        try:
            self._defaults = rows(side, INLINE_DEFAULTS, (oids["pg_attrdef"],))
            self._checks = rows(side, INLINE_CHECKS, (oids["pg_constraint"],))
        finally:
            side.close()

    def locks(self) -> list[Lock]:
        """The locks under which they are made."""
        return [
            Lock(quote_name(item["schema"], item["table"]), "ACCESS EXCLUSIVE", tree)
            for tree, items in ((False, self._defaults), (True, self._checks))
            for item in items
        ]

    def add(self, connection: Any) -> list[dict[str, Any]]:
        """Make them, in the caller's transaction, checks for new rows only; what cannot be made."""
        parts = []
        for kind, change, items in (
            ("default value", "ALTER COLUMN {name} SET DEFAULT {definition}", self._defaults),
            ("check constraint", "ADD CONSTRAINT {name} {definition}", self._checks),
        ):
            only = "ONLY " if kind == "default value" else ""
            for item in items:
                shown = f"{item['name']} on {display_name(item['schema'], item['table'])}"
                what = change.format(name=quote_ident(item["name"]), definition=item["definition"])
                what += " NOT VALID" if item.get("validated") else ""
                table = quote_name(item["schema"], item["table"])
                parts.append(Part(kind, shown, f"ALTER TABLE {only}{table} {what}", table))
        return make_parts(connection, parts)

    def validate(self, connection: Any) -> list[dict[str, Any]]:
        """Check the rows that are there, each check in a transaction of its own; what they do not allow."""
        left_to_do = []
        for item in self._checks:
            table = quote_name(item["schema"], item["table"])
            waiting = value(connection, UNVALIDATED, (table, item["name"]))
            connection.rollback()
            if not item["validated"] or not waiting:
                continue
            statement = f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote_ident(item['name'])}"

            def work(table: str = table, statement: str = statement) -> None:
                mark(connection, self._incident)
                execute_as_owner(connection, table, statement)

            try:
                patiently(connection, work)
            except connection.DatabaseError as error:
                connection.rollback()
                if is_passing(error):
                    raise
                left_to_do.append(
                    self._refused(connection, item, table, printed(connection, table, statement), server_message(error))
                )
                connection.rollback()
        return left_to_do

    @staticmethod
    def _refused(connection: Any, item: Mapping[str, Any], table: str, command: str, reason: str) -> dict[str, Any]:
        shown = display_name(item["schema"], item["table"])
        counts: list[int] = []
        # The count is worth no error of its own.
        with savepoint(connection, lambda error: None), each_as_its_owner(connection, []) as owners:
            oid = value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (table,))
            query = f"SELECT count(*) FROM {table} WHERE NOT ({item['condition']})"
            counts.append(int(owners.of(oid, item["schema"]).value(query)))
        count = counts[0] if counts else None
        what = f"{rows_that(count)} of {shown} {'is' if count == 1 else 'are'} not as it says ({reason}); new rows are "
        what += "checked, these are not. Mend them, then run the command"
        return left("check constraint", f"{item['name']} on {shown}", what, command, rows=count)


# What columns need that are put back into living tables.
TYPES = ("COLLATION", "DOMAIN", "EXTENSION", "SHELL TYPE", "TYPE")


def steps_of(context: Context, entries: Sequence[Entry], loaded: Iterable[int]) -> Steps:
    """The steps of a plan's missing objects out of a whole dump's entries, but those that the plan leaves out."""
    left_out = {tuple(item) for item in context.plan.get("left_out", [])}
    kept = [entry for entry in entries if (entry.description, entry.label) not in left_out]
    columns = any(item["action"] == "columns" for item in context.plan["relations"])
    return arrange(kept, context.plan["objects"], loaded, TYPES if columns else ())
