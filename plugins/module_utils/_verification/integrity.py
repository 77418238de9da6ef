# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored server is sound: read everything, ask amcheck, and compare what belongs together."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.index_pages import METHODS
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SETTINGS,
    late_settings,
    session_options,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._verification.amcheck import CORRUPT, EXTENSION
from ansible_collections.dbre.recovery.plugins.module_utils._verification.collations import changed_collations
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import LAYOUT, Layout
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import FULL, NO_LIBRARY, in_one_line
from ansible_collections.dbre.recovery.plugins.module_utils._verification.whole_files import (
    Missing,
    missing,
    relations,
)

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

HOURS = 24 * 3600.0  # seconds that one program may take
SHOWN = 20  # findings of one kind in a database
# Names may hold anything; what is wrong is told in lines of its own, behind four blanks.
_AMCHECK_OBJECT = re.compile(r'^((?:heap table|btree index) "(.*?)"(?:, block [^\n]*)?):\n    ([^\n]*)', re.M | re.S)
_BAD_PAGE = re.compile(r'checksum verification failed in file "([^"]+)", block (\d+)')
# What PostgreSQL, with lc_messages C, says of a database's own files and catalogue, and of its host.
_DAMAGED = re.compile(
    r"could not (?:read block|open file|open relation|find |access )|is not a valid data directory|invalid page|"
    r"cache lookup failed|contains invalid data|contains incorrect checksum|corrupt|missing chunk|is missing"
)
_OF_HOST = re.compile(r"Too many open files|Cannot allocate memory|Permission denied|out of memory")
_NO_LOCALE = "database locale is incompatible with operating system"

# datconnlimit of a database whose removal was broken off (PostgreSQL: DATCONNLIMIT_INVALID_DB).
BROKEN_OFF = -2
CODES_OF_FILES = {"file": "RELATION_INCOMPLETE", "rows": "ROWS_MISSING", None: "RELATION_SHORT"}
DATABASES = "SELECT datname, datallowconn, datconnlimit FROM pg_catalog.pg_database ORDER BY 1"
EVENT_TRIGGERS = "SELECT evtname FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'"
# Kinds r and m; toast tables are read with their tables.
RELATIONS = (
    "SELECT n.nspname, c.relname, c.relkind, c.relispopulated, c.relpersistence FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' ORDER BY 1, 2"
)
# Of columns that own them, and of keys whose default they are.
SEQUENCES_OF_COLUMNS = """
SELECT DISTINCT sn.nspname, s.relname, n.nspname, t.relname, a.attname
FROM (
  SELECT objid AS sequence, refobjid AS relation, refobjsubid AS number FROM pg_catalog.pg_depend
  WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND deptype IN ('a', 'i') AND refobjsubid > 0
  UNION
  SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
  WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n'
    AND pg_catalog.pg_get_expr(f.adbin, f.adrelid) ~ '^nextval[(]''.*''::regclass[)]$'
    AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = f.adrelid AND i.indisunique
                AND i.indnkeyatts = 1 AND i.indkey[0] = f.adnum)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = f.adrelid)
) AS used
JOIN pg_catalog.pg_class s ON s.oid = used.sequence AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = used.relation
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = used.number
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 'u' AND q.seqincrement > 0 AND NOT q.seqcycle
  AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
ORDER BY 1, 2, 3, 4
"""
# One that was never asked gives its first number next.
LAST_NUMBER = "CASE WHEN is_called THEN last_value ELSE last_value - 1 END"
INDEXES = (
    "SELECT c.oid::int8, n.nspname, c.relname, m.amname, i.indisvalid AND i.indisready,"
    " i.indexprs IS NOT NULL OR i.indpred IS NOT NULL FROM pg_catalog.pg_index i"
    " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am m ON m.oid = c.relam ORDER BY 2, 3"
)


class Begun(NamedTuple):
    """A database that lets somebody in. ``trusted``: its text is ordered here as there; ``code`` as of _indexes."""

    name: str
    version: int
    trusted: bool
    code: Mapping[str, int]
    gin: Mapping[str, int]
    relations: Sequence[Mapping[str, Any]]
    layout: Layout


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
        begun = []
        for name, open_, limit in self.recovery.rows(DATABASES):
            if limit == BROKEN_OFF:
                self.omit(f"database {name}", "its removal was broken off, so that it lets nobody in: drop it")
                continue
            if not open_:  # the copy is thrown away
                self.recovery.rows(f"ALTER DATABASE {quote_ident(name)} ALLOW_CONNECTIONS true")
            with self._told(name), self._session(name) as connection:
                begun.append(self._begin(connection, name))
        # Nobody writes from here on, so that all that is in memory is on disk then.
        self.recovery.rows("CHECKPOINT")
        # Side by side, each through all databases: pg_amcheck and the sessions are processes of their own.
        with ThreadPoolExecutor(1) as programs, ThreadPoolExecutor(1) as reading:
            amcheck = {one.name: programs.submit(self._amcheck, one) for one in begun}
            files = {one.name: reading.submit(missing, one.relations, one.layout) for one in begun}
            for one in begun:
                told = {"relations": 0, "rows": 0}
                self.facts["databases"][one.name] = told
                with self._told(one.name), self._session(one.name) as connection, connection.cursor() as cursor:
                    told["relations"], told["rows"] = self._read(cursor, one.name)
                    self._sequences(cursor, one.name)
            for one in begun:
                self._files(one.name, files[one.name].result())
                with self._told(one.name), self._session(one.name) as connection:
                    self._judge(connection, one, amcheck[one.name].result())
        return self.findings, self.omitted, self.facts

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Tell an error of a database: what was found, and other databases, count all the same."""
        try:
            yield
        except (RecoveryError, psycopg2.Error) as error:
            self.find(unread(error), name, f"database {name}: {in_one_line(error)}")

    @contextlib.contextmanager
    def _session(self, name: str) -> Iterator[Any]:
        connection = self.recovery.session(name)
        try:
            execute(connection, "SET search_path = ''")
            yield connection
        finally:
            connection.close()

    def _begin(self, connection: Any, name: str) -> Begun:
        """All that a database has to be asked for first, and what is written to it."""
        listed, layout = relations(connection), Layout(**rows(connection, LAYOUT)[0])
        with connection.cursor() as cursor:
            trusted = self._collations(cursor, name)
            code, gin = self._indexes(cursor, name)
            self._silence(cursor)
            # Where it cannot be made, pg_amcheck, which would make it, says why. One that came from an older server
            # lacks what newer ones look into.
            made = "CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog"
            for statement in (made, "ALTER EXTENSION amcheck UPDATE"):
                with contextlib.suppress(psycopg2.Error):
                    cursor.execute(statement)
        return Begun(name, connection.server_version, trusted, code, gin, listed, layout)

    def _files(self, name: str, found: Sequence[Missing]) -> None:
        """Whether all of each file is there, which neither reading nor amcheck nor checksums tell."""
        for one in found[:SHOWN]:
            said = f"{one.schema}.{one.name}"
            self.find(CODES_OF_FILES[one.proof], f"{name}: {said}", f"{said} in {name}: {one.why}")
        if len(found) > SHOWN:
            proved = [one.proof for one in found if one.proof]
            self.find(CODES_OF_FILES[proved[0] if proved else None], f"{name}: more", f"{len(found) - SHOWN} more")

    @staticmethod
    def _silence(cursor: Any) -> None:
        """Let no event trigger of production fire when pg_amcheck makes the extension that it needs."""
        cursor.execute(EVENT_TRIGGERS)
        for (trigger,) in cursor.fetchall():
            cursor.execute(f"ALTER EVENT TRIGGER {quote_ident(trigger)} DISABLE")

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
            try:
                total += self._copied(cursor, f"(SELECT * FROM {full})" if kind == "m" else full)
            except psycopg2.Error as error:
                message = str(error).strip().splitlines()[0]
                code = "HOST_UNFIT" if NO_LIBRARY.search(message) else "TABLE_UNREADABLE"
                self.find(code, f"{name}: {said}", f"{said} in {name}: {message}")
                continue
            read += 1
        return read, total

    @staticmethod
    def _copied(cursor: Any, source: str) -> int:
        """Have the server write all rows nowhere; how many. Every value is read whole, from wherever it is kept."""
        try:
            cursor.execute(f"COPY {source} TO '{os.devnull}' (FORMAT binary)")
        except psycopg2.Error:
            # Some types have no such form, and in it text is that of the session: not every character is in UTF-8.
            cursor.execute(f"COPY {source} TO '{os.devnull}' (ENCODING 'SQL_ASCII')")
        return int(cursor.rowcount)

    def _sequences(self, cursor: Any, name: str) -> None:
        """A sequence may be ahead of its column, never behind it."""
        cursor.execute(SEQUENCES_OF_COLUMNS)
        for sequence_schema, sequence, schema, table, column in cursor.fetchall():
            of = f"{quote_ident(sequence_schema)}.{quote_ident(sequence)}"
            where = f"{quote_ident(schema)}.{quote_ident(table)}"
            said = f"{sequence_schema}.{sequence}"
            try:
                cursor.execute(
                    f"SELECT (SELECT {LAST_NUMBER} FROM {of}),"
                    f" (SELECT pg_catalog.max({quote_ident(column)}) FROM {where})"
                )
            except psycopg2.Error as error:
                self.omit(f"sequence {said} in {name}", str(error).strip().splitlines()[0])
                continue
            last, highest = cursor.fetchone()
            if last is None:  # it is empty, which was seen in its file
                continue
            if text := sequence_behind(f"{said} in {name}", f"{schema}.{table}.{column}", last, highest):
                self.find("SEQUENCE_BEHIND", f"{name}: {said}", text)

    def _indexes(self, cursor: Any, name: str) -> tuple[dict[str, int], dict[str, int]]:
        """Say which amcheck does not look into; {name: OID} of those with code of users, and of GIN indexes.

        The former are named as pg_amcheck says them. Of the latter amcheck knows since PostgreSQL 18, by SQL alone.
        """
        cursor.execute(INDEXES)
        others: Counter[str] = Counter()
        code, gin = {}, {}
        for oid, schema, index, method, valid, expressions in cursor.fetchall():
            if not valid:
                self.omit(f"index {schema}.{index} in {name}", "it is not valid: its building was broken off")
            elif method == "gin" and cursor.connection.server_version >= 180000:
                gin[f"{schema}.{index}"] = oid
            elif method != "btree":
                others[method] += 1
            elif expressions:
                code[f"{name}.{schema}.{index}"] = oid
        for method, number in sorted(others.items()):
            known = "only whether all their pages are there was checked: " if method in METHODS else ""
            self.omit(f"{number} {method} indexes in {name}", f"{known}pg_amcheck does not look into them")
        return code, gin

    def _amcheck(self, one: Begun) -> Optional[subprocess.CompletedProcess[str]]:
        """What pg_amcheck printed of a database; None where there is none."""
        program = os.path.join(self.marker["bin_dir"], "pg_amcheck")
        if not os.path.exists(program):
            return None
        argv = [program, "--install-missing", f"--jobs={os.cpu_count() or 1}", f"--host={self.instance.run_dir}"]
        argv += [f"--port={self.marker['port']}", f"--username={self.marker['superuser']}", "--no-password"]
        argv += ["--heapallindexed"] if one.trusted else ["--no-dependent-indexes"]
        argv += ["--checkunique"] if one.trusted and int(self.marker["major_version"]) >= 17 else []
        # What a role or a database of production has set is not for this: a time limit would look like corruption.
        options = session_options({**SETTINGS, **NO_LIBRARIES, **late_settings(one.version, True)})
        return self.instance.call(
            [*argv, f"--database={_exactly(one.name)}"],
            timeout=HOURS,
            environment={"PGOPTIONS": options},
        )

    def _judge(
        self,
        connection: Any,
        one: Begun,
        done: Optional[subprocess.CompletedProcess[str]],
    ) -> None:
        """Findings of what pg_amcheck printed."""
        name = one.name
        if done is None:
            program = os.path.join(self.marker["bin_dir"], "pg_amcheck")
            self.omit(f"amcheck of {name}", f"there is no {program}: PostgreSQL 14 and later have it")
            return
        if "--no-dependent-indexes" in done.args:
            self.omit(f"indexes in {name}", "collations differ, so that a sound index would look corrupt")
        found = list(amcheck_findings(done.stdout))
        unfit = [(subject, text) for subject, text in found if NO_LIBRARY.search(text)]
        for subject, text in unfit[:SHOWN]:
            self.find("HOST_UNFIT", f"{name}: {subject}", text)
        if len(unfit) > SHOWN:
            self.find("HOST_UNFIT", f"{name}: more", f"{len(unfit) - SHOWN} more relations")
        rest = [one for one in found if one not in unfit]
        corrupt = [(subject, text) for subject, text in rest if not self._refuses(connection, name, subject, one.code)]
        for subject, text in corrupt[:SHOWN]:
            self.find("AMCHECK_CORRUPT", f"{name}: {subject}", text)
        if len(corrupt) > SHOWN:
            self.find("AMCHECK_CORRUPT", f"{name}: more", f"{len(corrupt) - SHOWN} more relations")
        if done.returncode not in (0, 2) or (done.returncode == 2 and not found):
            text = f"pg_amcheck of {name} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[:400]}"
            self.find("AMCHECK_UNRUNNABLE", name, text)
        self._gin(connection, one)

    def _gin(self, connection: Any, one: Begun) -> None:
        """Ask amcheck about GIN indexes, of which pg_amcheck knows nothing."""
        schema = value(connection, EXTENSION)
        if schema is None:  # what is told of pg_amcheck is why
            return
        for index, oid in one.gin.items():
            try:
                execute(connection, f"SELECT {schema}.gin_index_check(%s::oid::regclass)", (oid,))
            except psycopg2.Error as error:
                said = in_one_line(error)
                if error.pgcode in CORRUPT:
                    self.find("AMCHECK_CORRUPT", f"{one.name}: {index}", f"{index} in {one.name}: {said}")
                else:
                    self.find("AMCHECK_UNRUNNABLE", f"{one.name}: {index}", f"amcheck of {index} in {one.name}: {said}")

    def _refuses(self, connection: Any, name: str, subject: str, code: Mapping[str, int]) -> bool:
        """Whether what pg_amcheck complains of is code of users in an index, which does not run, and no corruption."""
        if subject not in code:
            return False
        schema = value(connection, EXTENSION)
        why = ""
        for compare in (True, False):
            try:
                execute(connection, f"SELECT {schema}.bt_index_check(%s::oid::regclass, %s)", (code[subject], compare))
            except psycopg2.Error as error:
                if error.pgcode in CORRUPT or not compare:
                    return False
                why = f"its expression, code of a user, ended with SQLSTATE {error.pgcode}"
        if why:
            self.omit(f"whether each row is in index {subject}", why)
        return bool(why)


def unread(error: Exception) -> str:
    """The code of an error with which a database lets nobody in, or its catalogue cannot be read."""
    text = str(error)
    if isinstance(error, UnfitHost) or _NO_LOCALE in text or NO_LIBRARY.search(text):
        return "HOST_UNFIT"
    if FULL.search(text):
        return "NO_ROOM"
    return "DATABASE_UNREADABLE" if _DAMAGED.search(text) and not _OF_HOST.search(text) else "CHECK_FAILED"


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
    for match in _AMCHECK_OBJECT.finditer(text):
        if match[2] not in seen:
            seen.add(match[2])
            yield match[2], f"{match[1]}: {match[3]}"


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
