# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether every commit that was acknowledged must be on a standby that can be reached.

PostgreSQL: src/backend/replication/syncrep_gram.y and syncrep_scanner.l for the words, syncrep.c for what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

ALL, NOT_ALL, NO_PROMISE, UNKNOWN = "all", "not_all", "no_promise", "unknown"
_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([0-9]+)|([A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)|([*,()]))')
_NAME, _NUMBER, _WORD, _MARK = range(4)


@dataclass(frozen=True)
class Synchronous:
    """``synchronous_standby_names``: a commit waits for ``count`` of ``names``, any or the first in their order."""

    method: str
    count: int
    names: tuple[str, ...]

    def wants(self, name: str) -> bool:
        """Whether a standby of that application_name is among them."""
        return any(each in ("*", name.lower()) for each in map(str.lower, self.names))


def _tokens(text: str) -> list[tuple[int, str]]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise _refused(text)
        kind = next(index for index, group in enumerate(match.groups()) if group is not None)
        found.append((kind, match.group(kind + 1).replace('""', '"') if kind == _NAME else match.group(kind + 1)))
        at = match.end()
    return found


def _refused(text: str) -> RecoveryError:
    return RecoveryError(
        f"synchronous_standby_names is {text!r}, which PostgreSQL does not understand either. Nothing was changed. "
        "Write it as PostgreSQL does, such as: FIRST 1 (db2, db3)"
    )


def parse_standby_names(text: str) -> Optional[Synchronous]:
    """The setting, understood; None when it is empty, that is without synchronous replication.

    ``FIRST 2 (a, b, c)``, ``ANY 2 (a, b, c)``, ``2 (a, b, c)`` and ``a, b, c`` (one of them) are its forms.
    RecoveryError for anything else.
    """
    tokens = _tokens(text)
    if not tokens:
        return None
    method, count = "first", 1
    if tokens[0][0] == _WORD and tokens[0][1].lower() in ("any", "first"):
        method = tokens.pop(0)[1].lower()
        if not tokens or tokens[0][0] != _NUMBER:
            raise _refused(text)
    if len(tokens) > 1 and tokens[0][0] == _NUMBER and tokens[1] == (_MARK, "("):
        if tokens[-1] != (_MARK, ")") or int(tokens[0][1]) < 1:
            raise _refused(text)
        count, tokens = int(tokens[0][1]), tokens[2:-1]
    elif method == "any":
        raise _refused(text)
    names, marks = tokens[::2], tokens[1::2]
    # A name in quotes may be anything, a plain one is an identifier, a number, or the star.
    plain = all(kind != _MARK or word == "*" for kind, word in names)
    if not names or len(tokens) % 2 == 0 or not plain or any(mark != (_MARK, ",") for mark in marks):
        raise _refused(text)
    return Synchronous(method, count, tuple(word for _kind, word in names))


def exchanged(setting: str, promoted: str, demoted: str) -> str:
    """The setting when two have exchanged their roles: the old primary stands by under the name ``demoted``.

    Of an empty setting, and where the promoted one was not in it, nothing changes. RecoveryError where the setting
    cannot be understood.
    """
    wanted = parse_standby_names(setting)
    if wanted is None or promoted.lower() not in map(str.lower, wanted.names):
        return setting
    names = [demoted if name.lower() == promoted.lower() else name for name in wanted.names]
    quoted = ", ".join('"' + name.replace('"', '""') + '"' if name != "*" else name for name in names)
    return f"{wanted.method.upper()} {wanted.count} ({quoted})"


@dataclass(frozen=True)
class Acknowledged:
    """What can be said of the commits that clients were told of.

    ``verdict``: ``all`` of them are on one of the standbys that can be reached; ``not_all``: some may be only on those
    in ``absent``, of which ``needed`` must be brought back; ``no_promise``: replication was asynchronous;
    ``unknown``: nobody knows whether it was.
    """

    verdict: str
    why: str
    needed: int = 0
    absent: tuple[str, ...] = ()


def acknowledged(
    setting: Optional[str], standbys: Mapping[str, str], reachable: Sequence[str], synchronous_commit: str = "on"
) -> Acknowledged:
    """Judge by the last known ``synchronous_standby_names``.

    ``standbys`` are all that are known, application_name by host, ``reachable`` the hosts whose WAL can be read. An
    acknowledged commit is on W standbys out of the N that the setting names; among R of them there is one that has it
    for certain when R + W > N. That holds with FIRST as well: when those in front were away, the ones behind counted.
    RecoveryError where the setting cannot be understood.
    """
    if setting is None:
        return Acknowledged(
            UNKNOWN, "synchronous_standby_names of the old primary is not known, since its disk cannot be read"
        )
    wanted = parse_standby_names(setting)
    if wanted is None:
        return Acknowledged(
            NO_PROMISE, "replication was asynchronous: a commit was acknowledged before any standby had it"
        )
    if synchronous_commit in ("off", "local"):
        return Acknowledged(
            NO_PROMISE, f"synchronous_commit was {synchronous_commit}: commits did not wait for any standby"
        )
    hosts = {host: name for host, name in standbys.items() if wanted.wants(name)}
    unknown = [name for name in wanted.names if name != "*" and name.lower() not in map(str.lower, standbys.values())]
    here = [host for host in hosts if host in reachable]
    among = len(hosts) + len(unknown)
    lacking = among - wanted.count + 1 - len(here)
    said = f"a commit waited for {wanted.count} of {among} standbys, and {len(here)} of them can be reached"
    if lacking <= 0:
        others = " (as far as the inventory knows them: the setting has a *)" if "*" in wanted.names else ""
        return Acknowledged(ALL, f"{said}: together they have every acknowledged commit{others}")
    absent = (*(host for host in hosts if host not in reachable), *unknown)
    return Acknowledged(NOT_ALL, f"{said}: acknowledged commits may be on the others only", lacking, absent)
