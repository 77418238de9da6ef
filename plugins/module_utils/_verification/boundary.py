# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a side instance stands exactly where it was told to: proved by WAL and the server, not by users' rows.

The last commit before the pause must be there, and the next one not. Both are read in the archive's WAL anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_history,
    parse_lsn,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, CommitLog

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

REACH = 16  # segments that are looked through in each direction for a commit
FUTURE = "22023"  # SQLSTATE of pg_xact_status for a transaction that is in the future


class Boundary(NamedTuple):
    """Where replay paused, and the commits on both sides of it that the archive has."""

    lsn: int
    before: Optional[Commit]
    after: Optional[Commit]


class ArchivedWal:
    """WAL around a position, fetched from the archive by the side instance's own configuration."""

    def __init__(self, instance: SideInstance, segment_size: int, spool: str) -> None:
        marker = instance.marker()
        self._instance = instance
        self._size = segment_size
        self._spool = Path(spool)
        self._timeline = int(marker["target"]["timeline"])
        self._waldump = os.path.join(marker["bin_dir"], "pg_waldump")
        self._command = [
            marker["executable"],
            f"--config={instance.backrest_config}",
            f"--stanza={marker['stanza']}",
            f"--repo={marker['plan']['set']['repo']}",
            "--no-archive-async",
            "--log-level-console=off",
            "archive-get",
        ]
        self._timelines = self._way()

    def _fetch(self, name: str, path: Path) -> bool:
        return self._instance.call([*self._command, name, str(path)], timeout=600).returncode == 0

    def _way(self) -> Timelines:
        path = self._spool / "history"
        if self._timeline > 1 and self._fetch(f"{self._timeline:08X}.history", path):
            return parse_history(path.read_text(), self._timeline)
        return Timelines(self._timeline)

    def _get(self, number: int) -> bool:
        # pg_waldump reads one timeline only, so that all bear the name of the last.
        name = segment_name(self._timelines.of_segment(number, self._size), number, self._size)
        return number > 0 and self._fetch(name, self._spool / segment_name(self._timeline, number, self._size))

    def _commits(self, first: int, last: int) -> CommitLog:
        names = [segment_name(self._timeline, number, self._size) for number in (first, last)]
        argv = [self._waldump, f"--path={self._spool}", "--rmgr=Transaction", *names]
        found = CommitLog()
        # It ends with an error where WAL ends, which is after all that can be read.
        found.add(self._instance.call(argv, timeout=600).stdout.encode())
        return found

    def boundary(self, lsn: int) -> Boundary:
        """The last commit before ``lsn`` and the first from it on, as far as the archive and REACH go."""
        first = last = lsn // self._size
        if not self._get(first):
            # Replay paused at the very end of a segment, behind which nothing is archived.
            first = last = first - 1
            if not self._get(first):
                raise RecoveryError(f"the archive does not have the WAL at {format_lsn(lsn)}, which was replayed")
        more = True
        commits = self._commits(first, last)
        for _step in range(REACH):
            if commits.last_before(lsn) is None and more and self._get(first - 1):
                first -= 1
            elif commits.last_before(lsn) is None:
                more = False
            if commits.first_from(lsn) is None and self._get(last + 1):
                last += 1
            elif commits.last_before(lsn) is not None or not more:
                break
            commits = self._commits(first, last)
        return Boundary(lsn, commits.last_before(lsn), commits.first_from(lsn))


def boundary(path: str, repo: int = 1) -> tuple[list[Finding], list[Omission], dict[str, Any]]:
    """Prove where the paused side instance at a path stands."""
    instance = SideInstance(path)
    recovery = SideRecovery(instance, timeout=60)
    ((lsn, next_xid, size),) = recovery.rows(
        "SELECT pg_last_wal_replay_lsn()::text, (pg_control_checkpoint()).next_xid,"
        " (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size')"
    )
    spool = tempfile.mkdtemp(prefix="boundary-", dir=instance.path)
    try:
        found = ArchivedWal(instance, int(size), spool).boundary(parse_lsn(lsn))
    finally:
        shutil.rmtree(spool)
    findings: list[Finding] = []
    omitted: list[Omission] = []
    for commit, expected, code, side in (
        (found.before, True, "PITR_LAST_COMMIT_ABSENT", "last commit before it"),
        (found.after, False, "PITR_NEXT_COMMIT_PRESENT", "next commit after it"),
    ):
        if commit is None:
            why = f"the archive has no commit on that side of {lsn} within {REACH} segments"
            omitted.append({"what": f"boundary of the restore: {side}", "why": why})
            continue
        status = xact_status(recovery, commit.xid, str(next_xid))
        if (status == "committed") is not expected:
            text = (
                f"replay paused at {lsn}; transaction {commit.xid}, the {side} ({format_lsn(commit.lsn)}), is {status}"
            )
            findings.append(finding(code, repo, str(commit.xid), text))
    facts = {
        "lsn": lsn,
        "last_commit": _shown(found.before),
        "next_commit": _shown(found.after),
    }
    return findings, omitted, facts


def _shown(commit: Optional[Commit]) -> Optional[dict[str, Any]]:
    return {"xid": commit.xid, "lsn": format_lsn(commit.lsn), "time": commit.commit_time} if commit else None


def xact_status(recovery: SideRecovery, xid: int, checkpoint_next: str) -> str:
    """``committed``, ``aborted``, ``in progress``, ``in the future`` or ``forgotten``, as the server has it.

    ``checkpoint_next`` is ``epoch:xid`` of a checkpoint not long before: transactions around it are of its epoch, but
    where the counter has just begun anew.
    """
    match = re.match(r"(\d+):(\d+)\Z", checkpoint_next)
    if not match:
        raise RecoveryError(f"{checkpoint_next!r} is no next transaction of a checkpoint")
    epoch, low = int(match[1]), int(match[2])
    half = 1 << 31
    if xid - low > half:
        epoch -= 1
    elif low - xid > half:
        epoch += 1
    try:
        ((status,),) = recovery.rows("SELECT pg_xact_status(%s::text::xid8)", (str(epoch << 32 | xid),))
    except psycopg2.Error as error:
        if error.pgcode != FUTURE:
            raise
        return "in the future"
    return str(status) if status else "forgotten"
