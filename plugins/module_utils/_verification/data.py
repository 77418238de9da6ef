# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored server holds what it should: the data of production at the same position, and what users assert.

No row is ever shown; of an assertion one number is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import PREFIX, Caged
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import is_superuser
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import xact_status
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import in_one_line
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import fingerprints_of

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

_EXPECTED = re.compile(r"\s*(<=|>=|<>|!=|=|<|>)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")
COMPARE = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    "=": lambda one, other: one == other,
    "<>": lambda one, other: one != other,
    "!=": lambda one, other: one != other,
    ">=": lambda one, other: one >= other,
    ">": lambda one, other: one > other,
}
READER = f"{PREFIX}reader"


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], database: str, repo: int
) -> tuple[list[Finding], list[Omission]]:
    """What differs between the fingerprints of a restored database and those of production, relation by relation."""
    found: list[Finding] = []
    omitted: list[Omission] = []
    for name in sorted({*here, *there}):
        one, other = here.get(name), there.get(name)
        subject = f"{database}: {name}"
        if one is None or other is None:
            side = "production" if one is None else "the restored server"
            found.append(finding("DATA_DIFFERS", repo, subject, f"{name} in {database} is only in {side}"))
        elif one["definition"] != other["definition"]:
            found.append(finding("DATA_DIFFERS", repo, subject, f"{name} in {database} has another definition"))
        elif "rows" not in one or "rows" not in other:
            omitted.append({"what": f"rows of {name} in {database}", "why": "they were not read on both sides"})
        elif (one["rows"], one["checksum"]) != (other["rows"], other["checksum"]):
            text = f"{name} in {database} has {one['rows']} rows, {other['rows']} in production"
            text += "" if one["rows"] != other["rows"] else ", and not the same"
            found.append(finding("DATA_DIFFERS", repo, subject, text))
    return found, omitted


def compared(
    path: str, snapshot: Mapping[str, Any], repo: int = 1
) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
    """Compare a side instance that was promoted where ``snapshot`` was taken with what it says (take_fingerprints)."""
    recovery = SideRecovery(SideInstance(path), timeout=60)
    ((lsn, next_xid),) = recovery.rows("SELECT pg_last_wal_replay_lsn()::text, (pg_control_checkpoint()).next_xid")
    facts: dict[str, Any] = {"snapshot": snapshot["lsn"], "lsn": lsn, "databases": {}}
    for xid in snapshot["running"]:
        # Its commit was in WAL already, though nobody saw it yet.
        if xact_status(recovery, int(xid) & 0xFFFFFFFF, str(next_xid)) == "committed":
            text = f"transaction {xid} had committed in WAL and was not seen yet: the two are of different moments"
            return [finding("DATA_NOT_COMPARABLE", repo, str(xid), text)], [], facts
    findings: list[Finding] = []
    omitted: list[Omission] = [{"what": one["what"], "why": one["why"]} for one in snapshot["not_checked"]]
    restored = {str(name) for (name,) in recovery.rows("SELECT datname FROM pg_catalog.pg_database")}
    for database, there in snapshot["databases"].items():
        if database not in restored:
            text = f"database {database} is only in production"
            findings.append(finding("DATA_DIFFERS", repo, database, text))
            continue
        try:
            with contextlib.closing(recovery.session(database)) as connection:
                connection.autocommit = False
                connection.set_session(readonly=True)
                taken = fingerprints_of(connection, database)
        except (RecoveryError, psycopg2.Error) as error:  # what differs in other databases counts all the same
            text = f"database {database} of the restored server could not be read: {in_one_line(error)}"
            findings.append(finding("DATA_NOT_COMPARABLE", repo, database, text))
            continue
        found, left = differences(taken.relations, there, database, repo)
        findings += found
        omitted += [one for one in left if one["what"] not in {item["what"] for item in omitted}]
        rows = sum(one.get("rows", 0) for one in taken.relations.values())
        facts["databases"][database] = {"relations": len(taken.relations), "rows": rows}
    return findings, omitted, facts


def parse_expected(text: str) -> tuple[str, Decimal]:
    """The comparison and the number of ``>= 1000``. Raises RecoveryError for anything else."""
    match = _EXPECTED.fullmatch(str(text))
    if not match:
        raise RecoveryError(f"{text!r} is no comparison with a number, such as '>= 1000'.")
    return match[1], Decimal(match[2])


def check_assertions(given: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The assertions as they were given; raises RecoveryError for one that says not what it needs."""
    for one in given:
        unknown = sorted(set(one) - {"name", "database", "sql", "expect"})
        missing = [key for key in ("name", "database", "sql", "expect") if not str(one.get(key) or "").strip()]
        if unknown or missing:
            what = f"has no {missing[0]}" if missing else f"has {unknown[0]!r}, which is none of its keys"
            raise RecoveryError(f"assertion {dict(one)} {what}. It needs name, database, sql and expect.")
        parse_expected(str(one["expect"]))
    return [{key: str(one[key]) for key in ("name", "database", "sql", "expect")} for one in given]


def asserted(
    path: str, assertions: Sequence[Mapping[str, str]], repo: int = 1
) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
    """Ask a promoted side instance each question."""
    return asserted_in(SideRecovery(SideInstance(path), timeout=60).session, assertions, repo)


def asserted_in(
    session: Callable[[str], Any], assertions: Sequence[Mapping[str, str]], repo: int
) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
    """Ask each question in its database, as a role that may read all data and do nothing else."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    for one in assertions:
        name, where = one["name"], one["database"]
        try:
            connection = session(where)
        except RecoveryError as error:
            number, why = None, error.msg
        else:
            with contextlib.closing(connection):
                number, why = _ask(connection, one["sql"])
        if number is None:
            findings.append(finding("ASSERTION_UNRUNNABLE", repo, name, f"{name} in {where}: {why}"))
            continue
        sign, wanted = parse_expected(one["expect"])
        facts[name] = {"number": str(number), "expect": one["expect"]}
        if not COMPARE[sign](number, wanted):
            text = f"{name} in {where} is {number}, expected is {one['expect'].strip()}"
            findings.append(finding("ASSERTION_FAILED", repo, name, text))
    return findings, [], facts


def _ask(connection: Any, sql: str) -> tuple[Optional[Decimal], str]:
    """The number that a query answers with, or why there is none; what is rolled back is nobody's to see."""
    if connection.server_version < 140000:
        return None, "PostgreSQL 14 and later have a role that may read all data"
    connection.autocommit = False
    try:
        execute(connection, f"CREATE ROLE {READER} NOLOGIN")
        if not is_superuser(connection):
            # Since PostgreSQL 16 who makes a role may grant it, but not become it before.
            execute(connection, f"GRANT {READER} TO CURRENT_USER")
        execute(connection, f"GRANT pg_read_all_data TO {READER}")
        cage = Caged(connection, READER)
        cage.open()
        # With a name of its own the first column hides none that is called like it. More rows than two say no more.
        answers = cage.rows(f"SELECT * FROM (\n{sql.strip().rstrip(';')}\n) AS asked(dbre_answer) LIMIT 2")
    except psycopg2.Error as error:
        # Its text may hold values of rows.
        return None, f"the server refused it with SQLSTATE {error.pgcode}"
    except RecoveryError:
        return None, "the server refused it"
    finally:
        connection.rollback()
    values = [value for row in answers for value in row.values()]
    if len(values) != 1:
        many = {0: "no row", 1: "one row"}.get(len(answers), "more rows than one")
        return None, f"it has {many} and {len(values)} values, and one row of one column is asked for"
    try:
        number = Decimal(str(values[0]))
    except InvalidOperation:
        return None, "its answer is no number"
    return (number, "") if number.is_finite() else (None, f"its answer, {number}, is no number")
