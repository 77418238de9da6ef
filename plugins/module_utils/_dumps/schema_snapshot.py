# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every definition of a server's databases, kept before a change, and what differs afterwards.

As pg_dump writes them, which knows functions, types, grants and policies, of which WAL does not tell in words.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name

FACTS = "snapshot.json"
GLOBALS = "globals.sql"
WHOLE_SERVER = "roles and tablespaces"  # where the name of a database stands otherwise
# pg_dump waits for whoever changes a table, and others wait behind it.
LOCK_TIMEOUT = "2s"
SHOWN = 200  # lines for people
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# What pg_dump writes above each definition (pg_backup_archiver.c).
_ENTRY = re.compile(
    r"^--\n-- Name: (?P<name>.*); Type: (?P<type>[^;]*); Schema: (?P<schema>[^;]*);.*\n--\n", re.MULTILINE
)
# What says how it was written, and differs each time or from one minor version to the next.
_NOISE = re.compile(
    r"^(?:\\(?:un)?restrict .*|-- Dumped (?:from|by) .*|--\n-- PostgreSQL database (?:cluster )?dump.*\n--)\n",
    re.MULTILINE,
)

DATABASES = """
SELECT oid::int8 AS oid, datname AS name FROM pg_catalog.pg_database
WHERE datallowconn AND NOT datistemplate ORDER BY datname
"""
POSITION = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END::text AS lsn,
       to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"') AS at,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier
"""


RESTORE_POINT = """
SELECT %(name)s AS name, lsn::text, pg_catalog.pg_walfile_name(lsn) AS segment,
       current_setting('cluster_name') AS cluster,
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) AS timeline,
       to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS at
FROM pg_catalog.pg_create_restore_point(%(name)s) AS lsn
"""


class Change(NamedTuple):
    """One definition that differs; ``what`` is ``made``, ``gone`` or ``changed``, ``lines`` those of the difference."""

    what: str
    type: str
    name: str
    lines: Sequence[str]


def definitions(text: str) -> dict[tuple[str, str, str], str]:
    """{(type, schema, name): SQL} of a script by pg_dump. What stands above the first has an empty key."""
    text = _NOISE.sub("", text)
    found: dict[tuple[str, str, str], str] = {}
    heads = list(_ENTRY.finditer(text))
    found["", "", ""] = text[: heads[0].start() if heads else len(text)].strip()
    for head, following in zip(heads, [*heads[1:], None]):
        key = head["type"], head["schema"], head["name"]
        body = text[head.end() : following.start() if following else len(text)].strip()
        # Functions of one name have their arguments in it; grants on one object are several entries.
        found[key] = f"{found[key]}\n{body}" if key in found else body
    return found


def changes(then: str, now: str) -> list[Change]:
    """What differs between two scripts, in the order of their types and names."""
    before, after = definitions(then), definitions(now)
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            kind, schema, name = key
            shown = name if schema in ("", "-") else f"{schema}.{name}"
            what = "made" if old is None else "gone" if new is None else "changed"
            found.append(Change(what, kind or "SETTINGS", shown or "of the script", difference(old or "", new or "")))
    return found


def difference(old: str, new: str) -> list[str]:
    """Lines that went, with a minus, and those that came, with a plus; passwords of subscriptions are masked."""
    old, new = mask_text(old), mask_text(new)
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    return [line for line in lines if not line.startswith("@@") and line[1:].strip()]


def change_lines(found: Sequence[Change]) -> list[str]:
    """For people, a line for each change and those that differ below it, as far as anybody reads."""
    lines: list[str] = []
    for number, change in enumerate(found):
        # Of what was made or is gone the statement says no more than that.
        below = change.lines if change.what == "changed" else []
        if len(lines) + 1 + len(below) > SHOWN:
            lines.append(f"and {counted(len(found) - number, 'more difference')}")
            break
        lines += [f"{change.type} {change.name} {change.what}", *(f"    {line}" for line in below)]
    return lines


class SchemaSnapshot:
    """The definitions that are kept under a name, on the server's host."""

    def __init__(self, folder: str, name: str) -> None:
        """``folder`` holds a directory for each. Raises RecoveryError for a name that is none."""
        if not _NAME.fullmatch(name):
            raise RecoveryError(f"{name!r} cannot name a directory: use letters, digits, dots, dashes and underscores.")
        self.name, self.path = name, Path(folder) / name

    def known(self) -> dict[str, Any] | None:
        """What was kept, of which server and when; None where nothing was."""
        try:
            found: dict[str, Any] = json.loads((self.path / FACTS).read_text())
            return found
        except FileNotFoundError:
            return None

    def keep(self, server: Server, backup: str) -> dict[str, Any]:
        """Keep the definitions of all databases, and set a restore point of the name right after.

        What others do between the two is told afterwards, too, and not missed. What cannot be dumped (``not_kept``) is
        no reason to go without the restore point.
        """
        connection = server.connect()
        try:
            facts: dict[str, Any] = {**rows(connection, POSITION)[0], "backup": backup, "name": self.name}
            databases = rows(connection, DATABASES)
        finally:
            connection.close()
        beside = self.path.with_name(f".{self.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700, parents=True)
        facts.update(databases={}, globals=None, not_kept={})
        for database in databases:
            name = database["name"]
            try:
                facts["databases"][name] = self._write(beside, f"{database['oid']}.sql", self._dump(server, name))
            except RecoveryError as error:
                facts["not_kept"][name] = error.msg
        try:
            facts["globals"] = self._write(beside, GLOBALS, self._globals(server))
        except RecoveryError as error:
            facts["not_kept"][WHOLE_SERVER] = error.msg
        connection = server.connect()
        try:
            facts["restore_point"] = rows(connection, RESTORE_POINT, {"name": self.name})[0]
        finally:
            connection.close()
        (beside / FACTS).write_text(json.dumps(facts, indent=1))
        os.rename(beside, self.path)
        sync_directory(str(self.path.parent))
        return facts

    def compare(self, server: Server, database: str) -> tuple[dict[str, Any], list[Change]]:
        """(what was kept, what differs now in a database and in what is of the whole server).

        Raises RecoveryError where they cannot be compared, unless it is because they could not be kept.
        """
        facts = self.known()
        if facts is None:
            names = sorted(path.name for path in self.path.parent.glob("*") if (path / FACTS).exists())
            there = f"There are: {', '.join(names)}." if names else "There are none."
            raise RecoveryError(
                f"no definitions were kept on {host_name()} as {self.name}, in {self.path.parent}. {there} "
                "snapshot-before-change keeps them; nothing can be compared with what was not kept."
            )
        connection = server.connect()
        try:
            here = rows(connection, POSITION)[0]["system_identifier"]
        finally:
            connection.close()
        if here != facts["system_identifier"]:
            raise RecoveryError(
                f"what was kept on {host_name()} as {self.name} is of the server with system identifier "
                f"{facts['system_identifier']}, and the one that was asked is {here}. Nothing was compared."
            )
        kept = facts["databases"].get(database)
        if kept is None and database in facts["not_kept"]:
            return facts, []
        if kept is None:
            raise RecoveryError(
                f"{self.name} on {host_name()} has no definitions of database {database}: there were "
                f"{', '.join(facts['databases'])}. Nothing was compared."
            )
        found = changes(self._read(kept), self._dump(server, database))
        if facts["globals"] is not None:
            found += changes(self._read(facts["globals"]), self._globals(server))
        return facts, found

    @staticmethod
    def _dump(server: Server, database: str) -> str:
        # A session of ours, which learns in what encoding programs talk with it.
        server.connect(database).close()
        command = ["pg_dump", "--schema-only", "--no-password", f"--lock-wait-timeout={LOCK_TIMEOUT}"]
        return server.run(command, database).decode("utf-8", "surrogateescape")

    @staticmethod
    def _globals(server: Server) -> str:
        connection = server.connect()
        name = connection.info.dbname
        connection.close()
        command = ["pg_dumpall", "--globals-only", "--no-role-passwords", "--no-password"]
        return server.run(command, name).decode("utf-8", "surrogateescape")

    @staticmethod
    def _write(directory: Path, name: str, text: str) -> dict[str, str]:
        data = text.encode("utf-8", "surrogateescape")
        with open(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}

    def _read(self, kept: Mapping[str, str]) -> str:
        data = (self.path / kept["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != kept["sha256"]:
            raise RecoveryError(
                f"{self.path / kept['file']} on {host_name()} is not what was kept (SHA-256 {kept['sha256']}). Nothing "
                "was compared. What WAL tells is still there: what-happened with dr_from."
            )
        return data.decode("utf-8", "surrogateescape")
