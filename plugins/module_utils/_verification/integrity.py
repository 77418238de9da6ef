# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored server is sound: read everything, ask amcheck, and compare what belongs together."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._verification.collations import changed_collations
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

HOURS = 24 * 3600.0  # seconds that one program may take
SHOWN = 20  # findings of one kind in a database
_AMCHECK_OBJECT = re.compile(r'(heap table|btree index) "([^"]*)"')
_BAD_PAGE = re.compile(r'checksum verification failed in file "([^"]+)", block (\d+)')

# Relations that amcheck of PostgreSQL cannot look into, by their access method.
UNCHECKABLE = ("hash", "brin", "gist", "spgist")
DATABASES = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"
# Kinds r and m; toast tables are read with their tables.
RELATIONS = (
    "SELECT n.nspname, c.relname, c.relkind, c.relispopulated, c.relpersistence FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' ORDER BY 1, 2"
)
OWNED_SEQUENCES = (
    "SELECT sn.nspname, s.relname, n.nspname, t.relname, a.attname FROM pg_catalog.pg_depend d"
    " JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'"
    " JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace"
    " JOIN pg_catalog.pg_class t ON t.oid = d.refobjid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid"
    " JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid"
    " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0"
    " AND t.relkind IN ('r', 'p') AND t.relpersistence <> 'u' AND q.seqincrement > 0 AND NOT q.seqcycle"
    " AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)"
    " ORDER BY 1, 2"
)
INDEXES = (
    "SELECT m.amname, count(*)::int FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am m ON m.oid = c.relam"
    " WHERE c.relkind = 'i' GROUP BY 1"
)


class Nowhere:
    """Takes what COPY sends, and counts the bytes."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: bytes) -> int:
        self.taken += len(data)
        return len(data)


class Integrity:
    """The checks of one promoted side instance, database by database."""

    def __init__(self, path: str, repo: int = 1) -> None:
        self.instance = SideInstance(path)
        self.marker = self.instance.marker()
        self.recovery = SideRecovery(self.instance, timeout=60)
        self.repo = repo
        self.findings: list[Finding] = []
        self.omitted: list[Omission] = []
        self.facts: dict[str, Any] = {"databases": {}}

    def find(self, code: str, subject: str, message: str) -> None:
        self.findings.append(finding(code, self.repo, subject, message))

    def omit(self, what: str, why: str) -> None:
        self.omitted.append({"what": what, "why": why})

    def run(self) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
        """All of them."""
        ((mode,),) = self.recovery.rows("SHOW archive_mode")
        if mode != "off":
            self.find("ARCHIVING_ENABLED", "archive_mode", f"the restored server has archive_mode {mode}")
        for (name,) in self.recovery.rows("SELECT datname FROM pg_catalog.pg_database WHERE NOT datallowconn"):
            self.omit(f"database {name}", "it lets nobody in")
        for (name,) in self.recovery.rows(DATABASES):
            self._database(str(name))
        return self.findings, self.omitted, self.facts

    def _database(self, name: str) -> None:
        connection = self.recovery.session(name)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET search_path = ''")
                trusted = self._collations(cursor, name)
                told = {"relations": 0, "bytes": 0}
                told["relations"], told["bytes"] = self._read(cursor, name)
                self._sequences(cursor, name)
                self._indexes(cursor, name)
        finally:
            connection.close()
        self.facts["databases"][name] = told
        self._amcheck(name, trusted)

    def _collations(self, cursor: Any, name: str) -> bool:
        """Whether indexes of text can be judged here: the order of text is this host's, and may be another there."""
        version = int(self.marker["major_version"])
        if version < 15:
            self.omit(f"collation of database {name}", f"PostgreSQL {version} does not keep its version")
        changed = changed_collations(cursor.connection)
        for one in changed:
            text = f"{one.what} in {name} was made with version {one.recorded}; this host has {one.actual}"
            self.find("COLLATION_MISMATCH", f"{name}: {one.what}", text)
        return not changed

    def _read(self, cursor: Any, name: str) -> tuple[int, int]:
        """Read every row of every table and materialized view to its end."""
        cursor.execute(RELATIONS)
        read = total = 0
        for schema, relation, kind, populated, persistence in cursor.fetchall():
            full, said = f"{quote_ident(schema)}.{quote_ident(relation)}", f"{schema}.{relation}"
            if kind == "m" and not populated:
                self.find("MATVIEW_UNPOPULATED", f"{name}: {said}", f"{said} in {name} holds no rows until a REFRESH")
                continue
            if persistence == "u":
                self.omit(f"{said} in {name}", "it is unlogged, and empty after every restore")
                continue
            nowhere = Nowhere()
            source = f"(SELECT * FROM {full})" if kind == "m" else full
            try:
                cursor.copy_expert(f"COPY {source} TO STDOUT", nowhere)
            except psycopg2.Error as error:
                message = str(error).strip().splitlines()[0]
                self.find("TABLE_UNREADABLE", f"{name}: {said}", f"{said} in {name}: {message}")
                continue
            read, total = read + 1, total + nowhere.taken
        return read, total

    def _sequences(self, cursor: Any, name: str) -> None:
        """A sequence may be ahead of its column, never behind it."""
        cursor.execute(OWNED_SEQUENCES)
        for sequence_schema, sequence, schema, table, column in cursor.fetchall():
            of = f"{quote_ident(sequence_schema)}.{quote_ident(sequence)}"
            where = f"{quote_ident(schema)}.{quote_ident(table)}"
            said = f"{sequence_schema}.{sequence}"
            try:
                cursor.execute(
                    f"SELECT (SELECT last_value FROM {of}), (SELECT pg_catalog.max({quote_ident(column)}) FROM {where})"
                )
            except psycopg2.Error as error:
                self.omit(f"sequence {said} in {name}", str(error).strip().splitlines()[0])
                continue
            last, highest = cursor.fetchone()
            if text := sequence_behind(f"{said} in {name}", f"{schema}.{table}.{column}", last, highest):
                self.find("SEQUENCE_BEHIND", f"{name}: {said}", text)

    def _indexes(self, cursor: Any, name: str) -> None:
        cursor.execute(INDEXES)
        for method, number in cursor.fetchall():
            if method in UNCHECKABLE or method == "gin":
                self.omit(f"{number} {method} indexes in {name}", "pg_amcheck does not look into them")

    def _amcheck(self, name: str, trusted: bool) -> None:
        program = os.path.join(self.marker["bin_dir"], "pg_amcheck")
        if not os.path.exists(program):
            self.omit(f"amcheck of {name}", f"there is no {program}: PostgreSQL 14 and later have it")
            return
        if not trusted:
            self.omit(f"indexes in {name}", "collations differ, so that a sound index would look corrupt")
        argv = [program, "--install-missing", f"--jobs={os.cpu_count() or 1}", f"--host={self.instance.run_dir}"]
        argv += [f"--port={self.marker['port']}", f"--username={self.marker['superuser']}", "--no-password"]
        argv += ["--heapallindexed"] if trusted else ["--no-dependent-indexes"]
        done = self.instance.call([*argv, f"--database={_exactly(name)}"], timeout=HOURS)
        corrupt = list(amcheck_findings(done.stdout))
        for subject, text in corrupt[:SHOWN]:
            self.find("AMCHECK_CORRUPT", f"{name}: {subject}", text)
        if len(corrupt) > SHOWN:
            self.find("AMCHECK_CORRUPT", f"{name}: more", f"{len(corrupt) - SHOWN} more relations")
        if done.returncode not in (0, 2) or (done.returncode == 2 and not corrupt):
            text = f"pg_amcheck of {name} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[:400]}"
            self.find("AMCHECK_UNRUNNABLE", name, text)


def sequence_behind(sequence: str, column: str, last: int, highest: Optional[int]) -> Optional[str]:
    """What is wrong with a sequence that stands at ``last`` where its column's ``highest`` number is; None: nothing."""
    if highest is None or last >= highest:
        return None
    return f"{sequence} stands at {last}, and {column} has a higher number"


def _exactly(name: str) -> str:
    """A database as a pattern of pg_amcheck that matches this one only."""
    return '"' + name.replace('"', '""') + '"'


def amcheck_findings(text: str) -> Iterator[tuple[str, str]]:
    """(relation, what is wrong with it) in what pg_amcheck printed, each relation once.

    ``btree index "shop.public.orders_pkey":`` with the error in the lines below it, ``heap table "…", block 0, …:``.
    """
    seen: set[str] = set()
    lines = text.splitlines()
    for at, line in enumerate(lines):
        match = _AMCHECK_OBJECT.match(line)
        if match and match[2] not in seen:
            seen.add(match[2])
            below = lines[at + 1].strip() if at + 1 < len(lines) else ""
            yield match[2], f"{line.rstrip(':')}: {below}"


def checksums(path: str, repo: int = 1) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
    """Have pg_checksums read every page of a stopped side instance."""
    instance = SideInstance(path)
    marker = instance.marker()
    program = os.path.join(marker["bin_dir"], "pg_checksums")
    done = instance.call([program, "--check", "-D", instance.data], timeout=HOURS)
    bad = _BAD_PAGE.findall(done.stderr + done.stdout)
    if "data checksums are not enabled" in done.stderr:
        return [], [{"what": "page checksums", "why": "data checksums are not enabled"}], {}
    found = [
        finding("PAGE_CHECKSUM", repo, f"{_below(file, instance.data)}:{block}", f"block {block} of {file} is damaged")
        for file, block in bad[:SHOWN]
    ]
    blocks = re.search(r"Blocks scanned:\s+(\d+)", done.stdout)
    scanned: Optional[int] = int(blocks[1]) if blocks else None
    if done.returncode not in (0, 1) or (done.returncode == 1 and not bad) or scanned is None:
        text = f"pg_checksums ended with {done.returncode}: {done.stderr.strip()[:400]}"
        found.append(finding("CHECKSUMS_UNRUNNABLE", repo, "pg_checksums", text))
    return found, [], {"blocks": scanned, "damaged": len(bad)}


def _below(file: str, data: str) -> str:
    return os.path.relpath(file, data)
