# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Point entries of PgBouncer from one server to another, in its files and in the one that runs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident

# Seconds that links to a server that is gone may take to be closed, before they are cut.
PATIENCE = 2.0
_POLL = 0.1
# name = key=value ...; the name may be in double quotes, a value in single ones, each doubled within (PgBouncer:
# src/loader.c). In a value in quotes backslashes mean nothing.
_ENTRY = re.compile(r'^(\s*)("(?:[^"]|"")*"|\*|[^\s=;#"]+)(\s*=\s*)(.*?)(\s*)$')
_PAIR = re.compile(r"(\w+)(\s*=\s*)('(?:[^']|'')*'|[^\s']*)")


@dataclass(frozen=True)
class Move:
    """From the servers at ``old_hosts`` and ``old_port`` to ``host`` and ``port``.

    ``local``: whether entries without a host mean the old server, since it is, or was, on PgBouncer's own host.
    """

    old_hosts: list[str]
    old_port: int
    host: str
    port: int
    local: bool = False


@dataclass
class Entries:
    """What became of a text: the new one, entries that were changed, and those that lead to the new server."""

    text: str
    changed: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    section: str = ""


def move_entries(text: str, move: Move, section: str = "") -> Entries:
    """Move the entries of a configuration that lead to the old server; everything else stays, letter for letter.

    ``section`` is the one that the text begins in, for a file that another one includes.
    """
    found = Entries("", section=section)
    lines = []
    for line in text.split("\n"):
        plain = line.strip()
        if header := re.fullmatch(r"\[(\w+)\]", plain):
            found.section = header.group(1).lower()
        elif plain.startswith("%include"):
            found.includes.append(plain[len("%include") :].strip())
        elif found.section == "databases" and plain and plain[0] not in ";#" and (entry := _ENTRY.match(line)):
            line = _moved(entry, move, found)
        lines.append(line)
    found.text = "\n".join(lines)
    return found


def _moved(entry: re.Match[str], move: Move, found: Entries) -> str:
    indent, name, sign, value, rest = entry.groups()
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name
    pairs = {match.group(1): match.group(3) for match in _PAIR.finditer(value)}
    host, port = _plain(pairs.get("host", "")), _plain(pairs.get("port", "5432"))
    hosts = [each.strip() for each in host.split(",")] if host else []
    local = not hosts or all(each.startswith(("/", "@")) for each in hosts)
    old = move.local if local else any(each in move.old_hosts for each in hosts)
    if port != str(move.old_port) or not old:
        if hosts == [move.host] and port == str(move.port):
            found.there.append(plain)
        return entry.group(0)
    # Of several hosts, among which PgBouncer takes turns, the old one is replaced.
    new = (
        move.host if local else ",".join(dict.fromkeys(move.host if each in move.old_hosts else each for each in hosts))
    )
    wanted = {"host": new, "port": str(move.port)}
    changed = _PAIR.sub(
        lambda match: f"{match.group(1)}{match.group(2)}{wanted.get(match.group(1), match.group(3))}", value
    )
    missing = [f"{key}={text}" for key, text in wanted.items() if key not in pairs]
    found.changed.append(plain)
    return f"{indent}{name}{sign}{' '.join([*missing, changed]).strip()}{rest}"


def _plain(value: str) -> str:
    return value[1:-1].replace("''", "'") if value.startswith("'") else value


def read_files(config: str, move: Move) -> dict[str, Entries]:
    """The configuration file and what it includes, each with what becomes of it; RecoveryError where one is missing."""
    found: dict[str, Entries] = {}

    def read(path: str, section: str) -> str:
        try:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read()
        except OSError as error:
            raise RecoveryError(
                f"PgBouncer's configuration {path} on {socket.gethostname()} cannot be read: {error.strerror}. It was "
                "not changed. Say where it is (pgbouncer_config_path)."
            ) from error
        found[path] = move_entries(text, move, section)
        for name in found[path].includes:
            inner = os.path.join(os.path.dirname(config), name)
            if inner not in found:
                read(inner, found[path].section)
        return found[path].section

    read(config, "")
    return found


def write_file(path: str, text: str) -> None:
    """Replace a file at once, with the owner and mode that it has; what it was is kept beside it."""
    before = os.stat(path)
    shutil.copy2(path, f"{path}.before-failover")
    scratch = f"{path}.new"
    with open(scratch, "w", encoding="utf-8", newline="") as file:
        os.fchmod(file.fileno(), before.st_mode & 0o7777)
        if (os.geteuid(), os.getegid()) != (before.st_uid, before.st_gid):
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync_directory(os.path.dirname(path))


class Console:
    """The admin console of a PgBouncer that runs."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        connection.autocommit = True  # the console knows no transactions

    def rows(self, command: str) -> list[dict[str, Any]]:
        """What SHOW returns."""
        with self.connection.cursor() as cursor:
            cursor.execute(command)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def run(self, command: str) -> None:
        """Carry out a command that returns nothing."""
        with self.connection.cursor() as cursor:
            cursor.execute(command)

    def leading_to(self, move: Move) -> list[str]:
        """Databases that lead to the old server still."""
        return [
            str(row["name"])
            for row in self.rows("SHOW DATABASES")
            if row["name"] != "pgbouncer" and self._old(row.get("host"), row.get("port"), move)
        ]

    def old_links(self, move: Move) -> list[dict[str, Any]]:
        """Connections to the old server."""
        addresses = {address for host in move.old_hosts for address in _addresses(host)}
        old = Move([*move.old_hosts, *addresses], move.old_port, move.host, move.port, move.local)
        return [row for row in self.rows("SHOW SERVERS") if self._old(row.get("addr"), row.get("port"), old)]

    def try_at_once(self, names: Sequence[str]) -> None:
        """Have these databases connected again as soon as a client wants it; nothing is done for those that are paused.

        After a connection that was refused PgBouncer begins the next no sooner than ``server_login_retry`` later, 15
        seconds unless set otherwise, and refuses clients until then (objects.c: launch_new_connection,
        check_fast_fail), also when it leads elsewhere meanwhile.
        """
        patience = {row["key"]: row["value"] for row in self.rows("SHOW CONFIG")}.get("server_login_retry", "0")
        paused = {row["name"] for row in self.rows("SHOW DATABASES") if int(row.get("paused") or 0)}
        wanted = set(names) - paused
        if not wanted or not float(patience):
            return
        self.run("SET server_login_retry = 0")
        try:
            deadline = time.monotonic() + PATIENCE
            while wanted - self._connected() and time.monotonic() < deadline:
                time.sleep(_POLL)
        finally:
            self.run(f"SET server_login_retry = {patience}")

    def _connected(self) -> set[str]:
        return {str(row["database"]) for row in self.rows("SHOW SERVERS") if row["state"] != "new"}

    @staticmethod
    def _old(host: Optional[str], port: Any, move: Move) -> bool:
        local = not host or str(host).startswith(("/", "@", "unix"))
        named = move.local if local else any(each in move.old_hosts for each in str(host).split(","))
        return named and str(port) == str(move.old_port)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def settle(console: Console, move: Move) -> tuple[list[str], list[str]]:
    """Have the running PgBouncer use what its files say; databases reconnected, and those whose links had to be cut.

    A link to a server whose power failed is not closed by anybody, and a query in it waits for minutes.
    """
    before = console.leading_to(move)
    if before:
        console.run("RELOAD")
    links = console.old_links(move)
    names = sorted({*before, *(str(row["database"]) for row in links)})
    for name in names:
        console.run(f"RECONNECT {quote_ident(name)}")
    deadline = time.monotonic() + PATIENCE
    while (links := console.old_links(move)) and time.monotonic() < deadline:
        time.sleep(_POLL)
    cut = sorted({str(row["database"]) for row in links})
    for name in cut:
        try:
            console.run(f"KILL {quote_ident(name)}")
        finally:
            console.run(f"RESUME {quote_ident(name)}")
    if names:
        console.try_at_once(names)
    left = console.leading_to(move)
    if left:
        raise RecoveryError(
            f"PgBouncer on {socket.gethostname()} leads {', '.join(left)} to {', '.join(move.old_hosts)} still, after "
            "RELOAD; its files do not. Does it read the file that was changed (SHOW CONFIG names conffile)? Name it "
            "(pgbouncer_config_path), and run this again with the same dr_incident_id."
        )
    return names, cut


def repoint(connection: Any, config: str, move: Move, check_mode: bool) -> dict[str, Any]:
    """Files first, then the one that runs; the module's result. RecoveryError where it leads elsewhere afterwards."""
    files = read_files(config, move)
    changed = [name for entries in files.values() for name in entries.changed]
    there = [name for entries in files.values() for name in entries.there]
    console = Console(connection)
    running = console.leading_to(move)
    result: dict[str, Any] = {
        "databases": sorted({*changed, *there}),
        "leading": running,
        "reconnected": [],
        "cut": [],
    }
    if check_mode:
        return {**result, "changed": bool(changed or running), "diff": _diff(files)}
    for path, entries in files.items():
        if entries.changed:
            write_file(path, entries.text)
    names, cut = settle(console, move)
    return {**result, "changed": bool(changed or names), "reconnected": names, "cut": cut, "diff": _diff(files)}


def _diff(files: Mapping[str, Entries]) -> dict[str, Any]:
    moved = {path: entries.changed for path, entries in files.items() if entries.changed}
    return {"before": {}, "after": {"moved": moved}} if moved else {"before": {}, "after": {}}
