# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a table that production goes on writing to, put aside, and what of them is not as it was.

All that takes long is done while nobody waits. Under the lock that keeps others from writing, what changed since is
known by the place of each version of a row (ctid), the transaction that wrote it (xmin) and its table, without looking
at a value: a transaction that was over when it was seen writes nothing more, so another version in the same place has
another xmin, freezing leaves it as it was, and what moves versions (VACUUM FULL, CLUSTER) gives the table other files.
Versions of transactions before a snapshot can only become fewer, so where their number is the same they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished, create_kept
from ansible_collections.dbre.recovery.plugins.module_utils._tables.row_versions import RowVersions

FILES = """
SELECT c.oid::int8 AS oid, pg_catalog.pg_relation_filenode(c.oid)::int8 AS file
FROM (SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r' ORDER BY 1
"""
# Tables of ours: what was there, each row of it, recovered rows to be inserted, and how many rows lie in each bucket;
# under the lock, rows to look at, and what is new or gone; values that went from the table, and that came into it.
KEPT = ("_aside", "_since")
COMPARED = ("_rows", "_lacked", "_buckets", "_seen", "_look", "_removed", "_written")


class Filled(NamedTuple):
    """What is known of the rows that were put aside."""

    files: list[dict[str, Any]]
    """Of the table, when it was read."""
    boundary: str
    """All transactions before this one were over."""
    total: int
    staying: tuple[int, int, int]
    """Of the rows that stay: how many, and sums of the hashes of their places and values."""
    updated: list[str]
    """Columns (SQL) that differ in rows that get other values."""


class Aside:
    """The rows of one table before they are exchanged for those it had."""

    def __init__(self, table: ExistingTable) -> None:
        self.table = table
        self._versions = RowVersions(table)
        self._named, self._identity = self._versions.named, self._versions.identity
        self._identity_types, self._same = self._versions.types, self._versions.same
        self._fields = [quote_ident(column["name"]) for column in table.columns]
        self._types = [f"{name} {column['type']}" for name, column in zip(self._fields, table.columns)]
        self._inside: dict[str, str] = {}
        # What is committed; all else is of the transaction that goes on, which may be undone and begun anew.
        self.prepared: Filled | None = None
        self._updated: list[str] = []
        self._total, self._staying = 0, [0, 0, 0]

    def inside(self, suffix: str) -> str:
        """SQL name of one of our tables where the owner may use it now; empty when there is none."""
        return self._inside.get(suffix, "")

    def _part(self, suffix: str) -> str:
        return quote_name(self.table.staging, self.table.derived(suffix))

    def _create(self, connection: Any, kind: str, suffix: str, columns: Sequence[str]) -> None:
        execute(connection, f"CREATE {kind} {self._part(suffix)} ({', '.join(columns)})")
        # Default privileges may have taken even from us what is ours.
        execute(connection, f"GRANT ALL ON {self._part(suffix)} TO CURRENT_USER")

    def _bring(self, owner: Owner, *suffixes: str) -> None:
        for suffix in suffixes:
            self._inside[suffix] = owner.bring(self.table.staging, self.table.derived(suffix))
            owner.lend("TABLE", self._inside[suffix], ["INSERT"])

    def _drop(self, connection: Any, suffixes: Sequence[str]) -> None:
        execute(connection, f"DROP TABLE IF EXISTS {', '.join(self._part(suffix) for suffix in suffixes)}")

    def _found_files(self, connection: Any) -> list[dict[str, Any]]:
        return rows(connection, FILES, {"oid": self.table.oid(connection)})

    def fill(self, connection: Any, owner: Owner, copy: str) -> Filled:
        """Put aside what is there, and compare it with the recovered rows in ``copy`` (SQL), in the caller's
        transaction."""
        self._drop(connection, [*KEPT, *COMPARED])
        named = self._named
        self._create(connection, "TABLE", "_aside", [*self._identity_types, *self._types])
        hidden = Unpublished(connection, self.table.staging, self._part("_aside"))
        about = (("bucket", "int4"), ("hash", "int8"), ("partner", "tid"), ("fate", '"char"'))
        columns = [f"{named[name]} {kind}" for name, kind in about]
        self._create(connection, "UNLOGGED TABLE", "_rows", [*self._identity_types, *columns])
        self._create(connection, "UNLOGGED TABLE", "_lacked", [f"{named['partner']} tid"])
        self._bring(owner, "_aside", "_rows", "_lacked")
        aside, found, lacked = (self._inside[suffix] for suffix in ("_aside", "_rows", "_lacked"))
        boundary = value(connection, "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::xid::text")
        owner.execute(
            f"INSERT INTO {aside} ({', '.join([*self._identity, *self._fields])}) "
            f"SELECT {', '.join(['tableoid', 'ctid', 'xmin', *self._fields])} FROM {self.table.own}"
        )
        files = self._found_files(connection)
        hidden.filled(aside)
        execute(connection, f"ANALYZE {aside}")
        query, updated = self._versions.compared(connection, aside, copy, boundary)
        owner.execute(f"INSERT INTO {found} {query}")
        partner, fate = named["partner"], named["fate"]
        buckets = self._part("_buckets")
        # Of what has to go, the like comes back.
        stays = f"SELECT FROM {found} i WHERE i.{partner} = s.ctid AND i.{fate} <> 'd'"
        execute(connection, f"INSERT INTO {lacked} SELECT ctid FROM {copy} s WHERE NOT EXISTS ({stays})")
        execute(
            connection,
            f"CREATE UNLOGGED TABLE {buckets} AS SELECT {named['leaf']}, {named['bucket']}, "
            f"count(*) AS {named['count']} FROM {found} WHERE {named['bucket']} IS NOT NULL GROUP BY 1, 2",
        )
        for name in ("place", "bucket", "fate"):
            execute(connection, f"CREATE INDEX ON {found} ({named[name]})")
        execute(connection, f"ANALYZE {found}; ANALYZE {lacked}; ANALYZE {buckets}")
        total = int(value(connection, f"SELECT count(*) FROM {found}"))
        staying = self._sums(connection, f"FROM {found} i WHERE i.{fate} = 's'")
        return Filled(files, boundary, total, staying, updated)

    def _sums(self, connection: Any, source: str) -> tuple[int, int, int]:
        place = self._versions.hash(connection, f"i.{self._named['leaf']}", f"i.{self._named['place']}")
        query = f"SELECT count(*) AS n, coalesce(sum({place}), 0)::text AS places, "
        query += f"coalesce(sum(i.{self._named['hash']}), 0)::text AS hashes {source}"
        found = rows(connection, query)[0]
        return int(found["n"]), int(found["places"]), int(found["hashes"])

    def catch_up(self, connection: Any, owner: Owner, copy: str) -> None:
        """Find what changed since, in the caller's transaction, under the lock that keeps others from writing."""
        named = self._named
        self._inside = {}
        filled = self.prepared
        if filled is None or filled.files != self._found_files(connection):
            filled = self.fill(connection, owner, copy)
        else:
            self._bring(owner, "_rows", "_lacked")
        self._updated = filled.updated
        gone = f"{named['gone']} bool"
        self._create(connection, "TABLE", "_since", [gone, *self._identity_types, *self._types])
        hidden = Unpublished(connection, self.table.staging, self._part("_since"))
        self._create(connection, "UNLOGGED TABLE", "_look", [gone, *self._identity_types])
        counted = [f"{named['bucket']} int4", f"{named['count']} int8"]
        self._create(connection, "UNLOGGED TABLE", "_seen", [*self._identity_types, *counted])
        self._bring(owner, "_since", "_look", "_seen")
        found, since, look = (self._inside[suffix] for suffix in ("_rows", "_since", "_look"))
        self._look(connection, owner, filled.boundary)
        own, identity = self.table.own, ", ".join(self._identity)
        there = f"p.ctid = y.{named['place']} AND p.tableoid = y.{named['leaf']}"
        owner.execute(
            f"INSERT INTO {since} ({', '.join([named['gone'], *self._identity, *self._fields])}) "
            f"SELECT {', '.join(['false', *(f'p.{name}' for name in ['tableoid', 'ctid', 'xmin', *self._fields])])} "
            f"FROM {look} y JOIN {own} p ON {there} WHERE NOT y.{named['gone']};\n"
            f"INSERT INTO {since} ({named['gone']}, {identity}) SELECT true, {identity} FROM {look} y "
            f"WHERE y.{named['gone']} AND NOT EXISTS "
            f"(SELECT FROM {own} p WHERE {there} AND p.xmin = y.{named['version']})"
        )
        hidden.filled(since)
        execute(connection, f"ANALYZE {since}")
        lost = f"FROM {found} i JOIN {since} x ON {self._same('x', 'i')} WHERE x.{named['gone']}"
        partner = f"i.{named['partner']}"
        execute(
            connection,
            f"INSERT INTO {self._inside['_lacked']} SELECT {partner} {lost} "
            f"AND i.{named['fate']} <> 'd' AND {partner} IS NOT NULL",
        )
        sums = self._sums(connection, f"{lost} AND i.{named['fate']} = 's'")
        self._staying = [here - less for here, less in zip(filled.staying, sums)]
        count = f"SELECT count(*) FILTER (WHERE NOT {named['gone']}) - count(*) FILTER (WHERE {named['gone']})"
        self._total = filled.total + int(value(connection, f"{count} FROM {since}"))
        execute(connection, f"DELETE FROM {found} i USING {since} x WHERE x.{named['gone']} AND {self._same('x', 'i')}")

    def _look(self, connection: Any, owner: Owner, boundary: str) -> None:
        """Find what may be new or gone."""
        named, own = self._named, self.table.own
        age = value(connection, "SELECT pg_catalog.age(%s::xid)", (boundary,))
        found, look, seen = (self._inside[suffix] for suffix in ("_rows", "_look", "_seen"))
        buckets = self._part("_buckets")
        # The whole table is gone through once: older versions are counted, the others listed.
        old = f"CASE WHEN pg_catalog.age(p.xmin) > {age} THEN"
        owner.execute(
            f"INSERT INTO {seen} SELECT p.tableoid, {old} NULL ELSE p.ctid END, {old} NULL ELSE p.xmin END, "
            f"{old} {self._versions.bucket(connection, 'p.ctid')} END, count(*) FROM {own} p GROUP BY 1, 2, 3, 4"
        )
        identity = ", ".join(self._identity)
        execute(
            connection,
            f"INSERT INTO {look} SELECT false, {identity} FROM {seen} WHERE {named['place']} IS NOT NULL; "
            f"ANALYZE {look}; ANALYZE {seen}; "
            f"DELETE FROM {look} y USING {found} i WHERE {self._same('y', 'i')}",
        )
        known = f"SELECT true, {', '.join(f'i.{name}' for name in self._identity)} FROM {found} i"
        execute(connection, f"INSERT INTO {look} {known} WHERE i.{named['bucket']} IS NULL")
        alike, full = (
            " AND ".join(f"{one}.{named[name]} = b.{named[name]}" for name in names)
            for one, names in (("i", ("leaf", "bucket")), ("n", ("leaf", "bucket", "count")))
        )
        execute(
            connection,
            f"INSERT INTO {look} {known} JOIN {buckets} b ON {alike} "
            f"WHERE NOT EXISTS (SELECT FROM {seen} n WHERE {full})",
        )
        execute(connection, f"ANALYZE {look}")

    def count(self) -> int:
        """How many rows there were, after catch_up()."""
        return self._total

    def remove(self, connection: Any, owner: Owner, columns: Sequence[str]) -> int:
        """Delete what has to go; the values of ``columns`` that were in it stand in ``_removed``. How many rows."""
        named = self._named
        place = f"{named['leaf']}, {named['place']}"
        doomed = (
            f"SELECT {place} FROM {self._inside['_rows']} WHERE {named['fate']} = 'd' "
            f"UNION ALL SELECT {place} FROM {self._inside['_since']} WHERE NOT {named['gone']}"
        )
        count = int(value(connection, f"SELECT count(*) FROM ({doomed}) AS d"))
        delete = (
            f"DELETE FROM {self.table.own} p USING ({doomed}) AS d "
            f"WHERE p.ctid = d.{named['place']} AND p.tableoid = d.{named['leaf']}"
        )
        if count:
            owner.execute(self._noting(connection, owner, delete, "_removed", columns))
        return count

    def write(self, connection: Any, owner: Owner, copy: str, columns: Sequence[str]) -> None:
        """Give rows the values they had, and insert those that are lacking; what came into ``columns`` stands in
        ``_written``."""
        table, named, found = self.table, self._named, self._inside["_rows"]
        if value(connection, f"SELECT EXISTS (SELECT FROM {found} WHERE {named['fate']} = 'u')"):
            update = (
                f"UPDATE {table.own} p SET {', '.join(f'{name} = s.{name}' for name in self._updated)} "
                f"FROM {found} i JOIN (SELECT {table.named_values}, ctid AS {named['place']} FROM {copy}) AS s "
                f"ON s.{named['place']} = i.{named['partner']} "
                f"WHERE i.{named['fate']} = 'u' AND p.ctid = i.{named['place']} AND p.tableoid = i.{named['leaf']}"
            )
            owner.execute(self._noting(connection, owner, update, "_written", columns))
        lacking = f"WHERE s.ctid IN (SELECT {named['partner']} FROM {self._inside['_lacked']})"
        insert = table.insert_statement(copy, lacking)
        owner.execute(self._noting(connection, owner, insert, "_written", columns, ""))

    def _noting(
        self, connection: Any, owner: Owner, change: str, suffix: str, columns: Sequence[str], row: str = "p."
    ) -> str:
        """The statement ``change``, which also notes the values of ``columns`` of its rows in a table of ours."""
        if not columns:
            return change
        if suffix not in self._inside:
            kinds = [kind for kind, column in zip(self._types, self.table.columns) if column["name"] in columns]
            self._create(connection, "UNLOGGED TABLE", suffix, kinds)
            self._bring(owner, suffix)
        fields = ", ".join(quote_ident(name) for name in columns)
        returned = ", ".join(f"{row}{quote_ident(name)}" for name in columns)
        return (
            f"WITH changed AS ({change} RETURNING {returned}) "
            f"INSERT INTO {self._inside[suffix]} ({fields}) SELECT {fields} FROM changed"
        )

    def content(self, connection: Any, owner: Owner, ours: str) -> Mapping[str, Any]:
        """Rows and checksum of the table as it is now, where ``ours`` is the transaction that changed it.

        Values that were hashed before are not read again: that just those rows are there is seen by their places.
        """
        mine, others = f"FILTER (WHERE p.xmin = '{ours}'::xid)", f"FILTER (WHERE p.xmin <> '{ours}'::xid)"
        place = self._versions.hash(connection, "p.tableoid", "p.ctid")
        hashed = fingerprint.row_hash(self.table.copied_columns, connection.server_version)
        found = owner.rows(
            f"SELECT count(*) AS n, count(*) {others} AS staying, coalesce(sum({place}) {others}, 0)::text AS places, "
            f"coalesce(sum({hashed}) {mine}, 0)::text AS written FROM {self.table.own} p"
        )[0]
        staying, places, hashes = self._staying
        if (int(found["staying"]), int(found["places"])) != (staying, places):
            return {"rows": found["n"], "checksum": "of rows that were not looked at"}
        checksum = f"{fingerprint.CHECKSUM_VERSION}:{hashes + int(found['written'])}"
        return {"rows": found["n"], "checksum": checksum}

    def drop_compared(self, connection: Any) -> None:
        """Remove what is not needed to finish(), in the caller's transaction."""
        self._drop(connection, COMPARED)

    def finish(self, connection: Any) -> None:
        """Make the table that stays out of what was put aside and what changed since, in the caller's transaction."""
        aside, since, named = self._part("_aside"), self._part("_since"), self._named
        if value(connection, "SELECT pg_catalog.to_regclass(%s)", (aside,)) is None:
            return
        fields = ", ".join(self._fields)
        gone = f"SELECT FROM {since} x WHERE x.{named['gone']} AND {self._same('x', 'r')}"
        query = (
            f"SELECT {fields} FROM {aside} r WHERE NOT EXISTS ({gone}) "
            f"UNION ALL SELECT {fields} FROM {since} WHERE NOT {named['gone']}"
        )
        for statement in create_kept(connection, self.table.staging, self.table.derived("_replaced"), query):
            execute(connection, statement)
        self._drop(connection, KEPT)
