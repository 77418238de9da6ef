# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verification finds: codes that stay, three verdicts, and what was not checked. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

VERIFIED, FAILED, UNKNOWN = "verified", "failed", "could_not_verify"
NOTICE = "notice"


class Code(NamedTuple):
    """What a finding leads to (FAILED, UNKNOWN, or NOTICE, which changes no verdict), and what it means."""

    leads_to: str
    text: str


CODES: dict[str, Code] = {
    "STANZA_MISSING": Code(FAILED, "The repository has no such stanza."),
    "REPOSITORY_UNREADABLE": Code(UNKNOWN, "The repository, or a file of it, could not be read."),
    "CLUSTER_DIFFERS": Code(
        FAILED, "The backups are of another cluster than production is, or than those in another repository."
    ),
    "BACKUP_MISSING": Code(FAILED, "There is no completed backup that serves as this type."),
    "BACKUP_STALE": Code(FAILED, "The newest backup that serves as this type is older than its schedule and grace."),
    "BACKUP_IN_FUTURE": Code(
        UNKNOWN, "A backup or WAL is of later than this host's clock says now: no age can be told."
    ),
    "BACKUP_PAGE_ERRORS": Code(FAILED, "A backup that the newest one needs, or that itself, holds damaged pages."),
    "BACKUP_PAGE_ERRORS_BEFORE": Code(NOTICE, "A backup that the newest one does not need holds damaged pages."),
    "BACKUP_PAGE_ERRORS_UNKNOWN": Code(UNKNOWN, "This pgBackRest does not say whether a backup holds damaged pages."),
    "SIZE_DROPPED": Code(FAILED, "The newest backup of a type is far smaller than those of its type before it."),
    "SIZE_JUMPED": Code(NOTICE, "The newest backup of a type is far larger than its growth explains."),
    "FILE_CORRUPT": Code(FAILED, "A file of a backup is not what was backed up."),
    "FILE_MISSING": Code(FAILED, "A file of a backup is not in the repository."),
    "MANIFEST_MISSING": Code(FAILED, "A backup that is listed has no manifest, so that it cannot be restored."),
    "WAL_CORRUPT": Code(FAILED, "A WAL segment of the archive is not what was archived."),
    "REPOSITORY_INFO_UNUSABLE": Code(FAILED, "backup.info or archive.info, and its copy, are missing or damaged."),
    "BACKUP_NOT_VERIFIED": Code(UNKNOWN, "pgbackrest verify said nothing of a backup that is listed."),
    "VERIFY_UNAVAILABLE": Code(UNKNOWN, "pgbackrest verify did not run: this version has none, or it failed."),
    "VERIFY_NOT_UNDERSTOOD": Code(UNKNOWN, "pgbackrest verify printed what is not understood."),
    "WAL_LOST": Code(FAILED, "WAL that a kept backup needs is missing, and newer WAL has long been archived."),
    "WAL_DUPLICATE": Code(FAILED, "A WAL segment is there with two contents: no restore can fetch it."),
    "TIMELINE_DIFFERS": Code(FAILED, "The archive has a newer timeline than production, which another server made."),
    "WAL_HISTORY_MISSING": Code(FAILED, "The history file of a timeline is missing: no way leads onto it."),
    "WAL_HISTORY_UNREADABLE": Code(UNKNOWN, "The history file of a timeline says nothing that is understood."),
    "RESTORE_FAILED": Code(FAILED, "The backup could not be restored, or the server did not come to its target."),
    "SET_EXPIRED": Code(UNKNOWN, "The backup was removed from the repository while it was being restored."),
    "NO_ROOM": Code(UNKNOWN, "The host of the test ran out of room, which says nothing of the backup."),
    "HOST_UNFIT": Code(UNKNOWN, "The host of the test lacks what a restore needs, such as PostgreSQL of that version."),
    "TABLESPACE_UNMAPPED": Code(
        UNKNOWN,
        "A tablespace was made since the backup: replay would write to that very place, so nothing is restored.",
    ),
    "TIMED_OUT": Code(UNKNOWN, "The restore took longer than the test may."),
    "KILLED": Code(UNKNOWN, "The test ended without saying anything: it was killed, or its host went down."),
    "PITR_TARGET_BEFORE_BACKUP": Code(FAILED, "No backup set leads to the moment that was asked for."),
    "PITR_TARGET_UNREACHED": Code(FAILED, "The archive ends before the moment that was asked for."),
    "RTO_EXCEEDED": Code(FAILED, "The restore took longer than the policy promises."),
    "RPO_EXCEEDED": Code(FAILED, "More would have been lost than the policy promises."),
    "PITR_LAST_COMMIT_ABSENT": Code(FAILED, "The last commit before the target is not in the restored server."),
    "PITR_NEXT_COMMIT_PRESENT": Code(FAILED, "A commit after the target is in the restored server."),
    "ARCHIVING_ENABLED": Code(FAILED, "The restored server would have archived into the repository."),
    "COLLATION_MISMATCH": Code(
        UNKNOWN, "Text sorts otherwise on the host of the restore: its indexes cannot be judged."
    ),
    "RELATION_INCOMPLETE": Code(
        FAILED, "A file of a table, an index or a sequence is missing, cut off or emptied, or pages of it are."
    ),
    "ROWS_MISSING": Code(FAILED, "An index or the visibility map of a table leads to rows that are not in it."),
    "RELATION_SHORT": Code(
        UNKNOWN, "A table has fewer blocks than were counted, or empty ones, and nothing tells whether rows are lost."
    ),
    "DATABASE_UNREADABLE": Code(FAILED, "A database lets nobody in, or its catalogue cannot be read."),
    "TABLE_UNREADABLE": Code(FAILED, "A table cannot be read to its end."),
    "MATVIEW_UNPOPULATED": Code(FAILED, "A materialized view has no rows and refuses to be read."),
    "SEQUENCE_BEHIND": Code(FAILED, "A sequence is behind the highest number in its column."),
    "AMCHECK_CORRUPT": Code(FAILED, "pg_amcheck found a table or an index corrupt."),
    "AMCHECK_UNRUNNABLE": Code(UNKNOWN, "pg_amcheck could not be run."),
    "PAGE_CHECKSUM": Code(FAILED, "A page of the restored server fails its checksum."),
    "CHECKSUMS_UNRUNNABLE": Code(UNKNOWN, "pg_checksums could not be run."),
    "DATA_DIFFERS": Code(FAILED, "A table is not what production had at the same position in WAL."),
    "DATA_NOT_COMPARABLE": Code(
        UNKNOWN, "Production could not be read to compare with, or what was read is of another moment."
    ),
    "ASSERTION_FAILED": Code(FAILED, "A number that the user asked for is not as expected."),
    "ASSERTION_UNRUNNABLE": Code(UNKNOWN, "A question of the user's gave no number."),
    "DATA_MOVED": Code(NOTICE, "Tables are not what the test before had: what has changed since."),
    "TABLE_NOT_READ": Code(UNKNOWN, "A table could not be read as the user of the test, which says nothing of it."),
    "LOGIN_FAILED": Code(UNKNOWN, "The test could not log in to a restored database."),
    "AWS_REFUSED": Code(UNKNOWN, "AWS did not do what the test needs, which says nothing of the backups."),
    "COPY_IN_THE_WAY": Code(UNKNOWN, "What has the name of the test's copy is none, or of a test that may still run."),
    "NOT_ISOLATED": Code(FAILED, "The restored database could be reached from outside, or do production's work."),
    "EVIDENCE_CHANGED": Code(UNKNOWN, "A report of an earlier test is not what was written then."),
    "SIGNATURE_FAILED": Code(UNKNOWN, "The report could not be signed."),
    "CHECK_FAILED": Code(UNKNOWN, "A check ended with an error of its own."),
    "CLEANUP_FAILED": Code(FAILED, "The side instance was not removed, or not whole."),
}


class Finding(TypedDict):
    """``subject`` is what it is about: a backup, a file, a range of WAL; ``ignored`` the user's reason not to mind."""

    code: str
    repo: int
    subject: str
    message: str
    ignored: Optional[str]


class Omission(TypedDict):
    """Something that was not checked, and why."""

    what: str
    why: str


class Check(TypedDict):
    """One question and its answer."""

    check: str
    verdict: str
    findings: list[Finding]
    not_checked: list[Omission]
    facts: dict[str, Any]


def finding(code: str, repo: int, subject: str, message: str) -> Finding:
    """A finding under one of the codes."""
    return {"code": CODES[code] and code, "repo": repo, "subject": subject, "message": message, "ignored": None}


def check_ignored(ignore: Mapping[str, Any]) -> dict[str, str]:
    """``ignore`` {code: reason} as it was given; raises RecoveryError for an unknown code or a missing reason."""
    for code, reason in ignore.items():
        if code not in CODES:
            raise RecoveryError(f"{code!r} in ignore is no code of a finding; there are {', '.join(sorted(CODES))}.")
        if not str(reason or "").strip():
            raise RecoveryError(f"ignore says no reason for {code}. Write beside it why it may be ignored.")
    return {code: str(reason) for code, reason in ignore.items()}


def verdict_of(verdicts: Iterable[str]) -> str:
    """The verdict of several: one that failed decides, then one that could not be reached."""
    found = set(verdicts)
    return FAILED if FAILED in found else UNKNOWN if UNKNOWN in found else VERIFIED


def conclude(
    name: str,
    findings: Iterable[Finding],
    ignore: Mapping[str, str],
    not_checked: Iterable[Omission] = (),
    facts: Optional[Mapping[str, Any]] = None,
) -> Check:
    """A check with the verdict that its findings lead to, but for those that are ignored."""
    marked: list[Finding] = [{**item, "ignored": ignore.get(item["code"])} for item in findings]
    counted = [CODES[item["code"]].leads_to for item in marked if item["ignored"] is None]
    return {
        "check": name,
        "verdict": verdict_of(counted),
        "findings": marked,
        "not_checked": list(not_checked),
        "facts": dict(facts or {}),
    }
