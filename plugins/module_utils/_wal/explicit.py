# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets that the user gives: checked against the WAL and made exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Backup
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Candidate, Harm, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.left_timelines import require_moment, require_position
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, format_time, parse_time


def window(scan: Scan, backup: Backup) -> str:
    """From where to where a restore can go, for messages."""
    times = scan.commits.times
    last = f", {format_time(times[-1])}" if len(times) else ""
    return (
        f"A restore can go from the end of backup {backup.label} ({format_time(backup.stop_time)}) "
        f"to the last commit in WAL ({format_lsn(scan.end)}{last})."
    )


def explicit_target(
    option: str, value: str, scan: Scan, backup: Backup, request: Request, next_xid: int
) -> tuple[Candidate, str]:
    """The target that ``target_lsn``, ``target_time`` or ``target_xid`` names, as one just before a WAL record.

    ``next_xid`` is the number of the server's next transaction, counted on over 32 bits.
    """
    scan.extend()
    also: tuple[Commit, ...] = ()
    if option == "target_lsn":
        lsn, commit, reason = _by_lsn(value, scan, backup)
    elif option == "target_time":
        lsn, commit, reason = _by_time(value, scan, backup)
    else:
        (commit, *others), reason = _by_xid((value, *request.together), scan, backup, next_xid)
        lsn, also = commit.lsn, tuple(others)
    stop = backup.stop_lsn
    if stop and lsn < parse_lsn(stop):
        raise RecoveryError(
            f"{option} {value} is before the end of the oldest backup. {window(scan, backup)} Nothing was changed."
        )
    asked = tuple(Harm(0, schema, name, None, "") for schema, name in request.relations)
    return Candidate("explicit", commit, lsn, asked, also=also), reason


def _by_lsn(value: str, scan: Scan, backup: Backup) -> tuple[int, Commit, str]:
    lsn = parse_lsn(value)
    if lsn >= scan.end:
        raise RecoveryError(
            f"target_lsn {value} is not yet in WAL. {window(scan, backup)} Nothing was changed. Name an earlier one."
        )
    while scan.start > lsn and not scan.at_floor:
        scan.extend()
    if scan.start > lsn:
        raise RecoveryError(
            f"target_lsn {value} is before the WAL of the oldest backup. {window(scan, backup)} Nothing was changed."
        )
    following = scan.commits.first_from(lsn)
    if following is None:
        raise RecoveryError(
            f"no transaction has committed since target_lsn {value}, so there is nothing to undo. "
            f"{window(scan, backup)} Nothing was changed. Name an earlier one."
        )
    also = require_position(scan, lsn, following)
    return lsn, following, f"just before LSN {format_lsn(lsn)}, as asked{also}"


def _by_time(value: str, scan: Scan, backup: Backup) -> tuple[int, Commit, str]:
    time = parse_time(value, "target_time")
    if time < backup.stop_time:
        raise RecoveryError(
            f"target_time {value} is before the oldest backup. {window(scan, backup)} Nothing was changed. "
            "Name a later time, or an older backup must be brought back first."
        )
    while not scan.at_floor and (not len(scan.commits) or scan.commits.times[0] > time):
        scan.extend()
    following = scan.commits.first_later_than(time)
    if following is None:
        raise RecoveryError(
            f"target_time {value} is after the last commit, so there is nothing to undo. {window(scan, backup)} "
            "Nothing was changed. Name an earlier time."
        )
    require_moment(scan, time, following)
    reason = f"everything committed up to {format_time(time)}: just before the first later COMMIT, of transaction "
    return following.lsn, following, reason + f"{following.xid} at {following.commit_time}"


def transaction(value: str, next_xid: int) -> int:
    """The number that WAL has for a transaction, of 32 bits, from what the user wrote.

    pg_current_xact_id() and txid_current() count on where the 32 bits in WAL start anew; what stands in a log, in
    pg_waldump and in xmin does not. A number that the server has not come to, or that WAL has forgotten, is refused
    rather than cut to that of another transaction.
    """
    if not value.strip().isdigit():
        raise RecoveryError(
            f"target_xid: {value!r} is no transaction; write its number, such as 734. A run is about one transaction, "
            "but for dr-corruption with dr_strategy=rows, which takes several, as 734,741"
        )
    number = int(value)
    xid = number & 0xFFFFFFFF
    epoch = next_xid >> 32
    whole = (epoch << 32 | xid) if xid < next_xid & 0xFFFFFFFF or not epoch else ((epoch - 1) << 32 | xid)
    if number not in (xid, whole) or whole >= next_xid:
        raise RecoveryError(
            f"target_xid: transaction {number} is not one of the last 4,294,967,296 of this server, whose next is "
            f"{next_xid}. Nothing was changed. Write the number as the server's log, pg_waldump or "
            "pg_current_xact_id() have it."
        )
    return xid


def _by_xid(values: Sequence[str], scan: Scan, backup: Backup, next_xid: int) -> tuple[list[Commit], str]:
    """The transactions that are named, in the order of their commits, and why the target is before the first."""
    found: dict[int, Commit] = {}
    inside = ""
    for value in values:
        xid = transaction(value, next_xid)
        commit = _committed(xid, scan)
        if commit is None:
            raise RecoveryError(
                f"no COMMIT of transaction {xid} is in the WAL from {format_lsn(scan.start)} to "
                f"{format_lsn(scan.end)}: it never committed, or before that. {window(scan, backup)} Nothing was "
                "changed."
            )
        found[commit.lsn] = commit
        inside = "" if commit.xid == xid else f", of which {xid} is a subtransaction"
    commits = [found[lsn] for lsn in sorted(found)]
    prepared = "COMMIT PREPARED" if commits[0].prepared else "COMMIT"
    of_all = f", the first of {len(commits)} that are named" if len(commits) > 1 else inside
    return commits, f"just before the {prepared} of transaction {commits[0].xid}{of_all}, as asked"


def _committed(xid: int, scan: Scan) -> Optional[Commit]:
    while True:
        found = scan.commits.by_transaction([xid]).get(xid)
        if found is not None or scan.at_floor:
            return found
        scan.extend()
