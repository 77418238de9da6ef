# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom each item of a dump must be made as, and in which order. Pure functions over its table of contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import Archive, Entry
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name

# What no code of users runs for when it is made: nothing in it is an expression, or only a superuser or the owner of a
# database can have made it. All that is not named here is made as its owner.
INERT = frozenset(
    {
        *("ACCESS METHOD", "ACL", "BLOB", "BLOB COMMENTS", "BLOB METADATA", "BLOBS", "CAST"),
        *("COLLATION", "COMMENT", "CONVERSION", "DATABASE", "DATABASE PROPERTIES", "DEFAULT ACL", "ENCODING"),
        *("EVENT TRIGGER", "EXTENSION", "FOREIGN DATA WRAPPER", "FOREIGN SERVER", "OPERATOR", "OPERATOR CLASS"),
        *("OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PUBLICATION", "PUBLICATION TABLE"),
        *("PUBLICATION TABLES IN SCHEMA", "SCHEMA", "SEARCHPATH", "SECURITY LABEL", "SEQUENCE SET", "SERVER"),
        *("SHELL TYPE", "STDSTRINGS", "SUBSCRIPTION", "SUBSCRIPTION TABLE", "TEXT SEARCH CONFIGURATION"),
        *("TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM", "TYPE"),
        "USER MAPPING",
    }
)
# Of these, only what has constants or a body that is read when it is made.
WITH_CONSTANTS = {
    "FUNCTION": re.compile(r"\bDEFAULT\b|\bATOMIC\b"),
    "PROCEDURE": re.compile(r"\bDEFAULT\b|\bATOMIC\b"),
    "AGGREGATE": re.compile(r"INITCOND"),
    # Its function may well be one that the table's owner may not call.
    "TRIGGER": re.compile(r"\bWHEN\b"),
}
ATTACHMENTS = ("INDEX ATTACH", "TABLE ATTACH")
# Grants on tables let others in, those on these keep them out.
GRANTS_ON_ROWS = ("TABLE ", "COLUMN ", "SEQUENCE ", "LARGE OBJECT", "DATABASE ")
# What runs the functions that it names when it is made, or when its table is analyzed.
RUNNING = ("CHECK CONSTRAINT", "CONSTRAINT", "DEFAULT", "FK CONSTRAINT", "INDEX", "STATISTICS", "TABLE", "TABLE ATTACH")
LOOKING = ("FK CONSTRAINT", "TABLE ATTACH")
TYPES = ("SHELL TYPE", "TYPE")
REMARKS = ("COMMENT", "SECURITY LABEL")
# What takes long, and can be made side by side.
LONG = ("CHECK CONSTRAINT", "CONSTRAINT", "FK CONSTRAINT", "INDEX", "INDEX ATTACH")
LAST = ("ACL", "DEFAULT ACL", "MATERIALIZED VIEW DATA")


class DumpOrder:
    """The items of one dump, by id, with whom they belong to."""

    def __init__(self, archive: Archive) -> None:
        self.by_id = {entry.dump_id: entry for entry in archive.entries}
        self._triggers = {entry.dump_id for entry in archive.entries if entry.desc == "EVENT TRIGGER"}

    def needed_by(self, entry: Entry) -> list[Entry]:
        """The items that one needs directly."""
        return [self.by_id[dump_id] for dump_id in entry.deps if dump_id in self.by_id]

    def tables_of(self, entry: Entry) -> list[Entry]:
        """The tables that one is about, of an index the one it is on."""
        needed = self.needed_by(entry)
        found = [*needed, *(third for other in needed for third in self.needed_by(other))]
        return [item for item in dict.fromkeys(found) if item.desc == "TABLE"]

    def owners(self, entry: Entry) -> list[str]:
        """The roles whose code may run when an item is made, which is made as the first of them; none where none can.

        An attachment is about two tables; in dumps of before 2023 it has no owner of its own.
        """
        constants = WITH_CONSTANTS.get(entry.desc)
        if entry.desc in INERT or (constants is not None and not constants.search(entry.defn)):
            return []
        owners = [table.owner for table in self.tables_of(entry)]
        if entry.desc in ATTACHMENTS:
            return [role for role in dict.fromkeys([entry.owner, *owners]) if role]
        # Statistics need not belong to the owner of their table, who alone may make them.
        whose = owners[:1] if entry.desc == "STATISTICS" and owners else [entry.owner]
        return [role for role in whose if role]

    def using_code_of(self, is_another: Callable[[str], bool]) -> set[int]:
        """Dump ids of what uses, or looks at rows that use, a function or domain whose owner ``is_another``."""
        code = ("AGGREGATE", "DOMAIN", "FUNCTION", "PROCEDURE")
        found: set[int] = set()
        # A dump's own order has what is needed first.
        for entry in self.by_id.values():
            needed = self.needed_by(entry)
            running = code if entry.desc in RUNNING else ("DOMAIN",)
            direct = [other.owner for other in needed if other.desc in running]
            direct += [entry.owner] if entry.desc == "DOMAIN" else []
            through = {other.dump_id for other in needed if other.desc in TYPES}
            if any(map(is_another, direct)) or not found.isdisjoint(through):
                found.add(entry.dump_id)
        # What is checked by a look at tables, or at their keys, is not said to use what these do.
        using = [entry for entry in self.by_id.values() if entry.dump_id in found]
        tables = {
            table.dump_id for entry in using for table in [entry, *self.tables_of(entry)] if table.desc == "TABLE"
        }
        for entry in self.by_id.values():
            if entry.desc in LOOKING and not tables.isdisjoint(table.dump_id for table in self.tables_of(entry)):
                found.add(entry.dump_id)
        return found

    def definitions(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """``(now, later)``: what comes before the rows, with remarks at the end, and grants that wait for the end."""
        now: list[Entry] = []
        later: list[Entry] = []
        for entry in entries:
            (later if entry.desc == "ACL" and entry.tag.startswith(GRANTS_ON_ROWS) else now).append(entry)
        return sorted(now, key=lambda entry: entry.desc in REMARKS), later

    def _is_of_trigger(self, entry: Entry) -> bool:
        return entry.dump_id in self._triggers or not self._triggers.isdisjoint(entry.deps)

    def long_and_short(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """What takes long of the items after the rows, with what it needs among them, and the rest but the last."""
        here = {entry.dump_id: entry for entry in entries}
        long: set[int] = set()
        waiting = [entry.dump_id for entry in entries if entry.desc in LONG]
        while waiting:
            dump_id = waiting.pop()
            if dump_id not in long:
                long.add(dump_id)
                waiting += [other for other in here[dump_id].deps if other in here]
        rest = [entry for entry in entries if entry.dump_id not in long]
        short = [entry for entry in rest if entry.desc not in LAST and not self._is_of_trigger(entry)]
        return [entry for entry in entries if entry.dump_id in long], short

    def last(self, entries: Sequence[Entry]) -> list[Entry]:
        """Grants, then materialized views, which may read what is granted."""
        found = [entry for entry in entries if entry.desc in LAST and not self._is_of_trigger(entry)]
        return sorted(found, key=lambda entry: LAST.index(entry.desc))

    def event_triggers(self, entries: Sequence[Entry]) -> list[Entry]:
        """Event triggers, with remarks on them."""
        return [entry for entry in entries if self._is_of_trigger(entry)]


def levels(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Items in lists, each of which needs only those before it."""
    level: dict[int, int] = {}
    here = {entry.dump_id for entry in entries}
    # A dump's own order has what is needed first.
    for entry in entries:
        level[entry.dump_id] = 1 + max(
            (level.get(dump_id, -1) for dump_id in entry.deps if dump_id in here), default=-1
        )
    return [
        [entry for entry in entries if level[entry.dump_id] == number]
        for number in range(max(level.values(), default=-1) + 1)
    ]


def needs_of_owner(order: DumpOrder, owner: str, entries: Iterable[Entry]) -> list[tuple[str, str, str, str]]:
    """Privileges that the owner of items must have to make them: ``(kind, name, name as SQL, privilege)``.

    He had them when he made them, or a superuser made them for him.
    """
    found: dict[tuple[str, str, str, str], None] = {}

    def of_schema(name: str, privilege: str) -> None:
        if name:
            found["SCHEMA", name, quote_ident(name), privilege] = None

    for entry in entries:
        of_schema(entry.namespace, "USAGE")
        of_schema(entry.namespace, "CREATE")
        needed = order.needed_by(entry)
        for other in needed:
            of_schema(other.namespace, "USAGE")
        if entry.tablespace:
            found["TABLESPACE", entry.tablespace, quote_ident(entry.tablespace), "CREATE"] = None
        if entry.desc == "FK CONSTRAINT":
            for table in order.tables_of(entry):
                if table.owner != owner:
                    name = quote_name(table.namespace, table.tag)
                    of_schema(table.namespace, "USAGE")
                    found["TABLE", name, name, "REFERENCES"] = None
    return list(found)
