# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text of ``pgbackrest verify`` means for the backups that ``pgbackrest info`` lists. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import holdings
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.verify_text import BadFile, Counted, Verified

SHOWN = 20  # bad files that have a finding each
_SEGMENT = re.compile(r"(\d[\d.]*-\d+)/[0-9A-F]{16}/([0-9A-F]{24})")
_OF_BACKUP = {"missing": "FILE_MISSING", "corrupt": "FILE_CORRUPT", "unreadable": "REPOSITORY_UNREADABLE"}
_OF_WAL = {"missing": "WAL_LOST", "corrupt": "WAL_CORRUPT", "unreadable": "REPOSITORY_UNREADABLE"}


def judged(
    found: Verified, before: Mapping[str, Any], after: Mapping[str, Any], repo: int
) -> tuple[list[Finding], list[Omission]]:
    """Findings of one repository; ``before`` and ``after`` are the facts of the stanza then.

    What expire removed meanwhile is no finding.
    """
    if found.strange:
        shown = "; ".join(line.strip() for line in found.strange[:3])[:300]
        return [finding("VERIFY_NOT_UNDERSTOOD", repo, "output", f"pgbackrest verify printed: {shown}")], []
    if found.unusable:
        text = "pgbackrest verify can use neither the file nor its copy"
        return [finding("REPOSITORY_INFO_UNUSABLE", repo, name, text) for name in found.unusable], []
    listed = {one["label"]: one for one in after["backups"] if one["repo"] == repo}
    kept = [file for file in found.files if _kept(file, listed, after, repo)]
    findings = _named(kept, listed, repo)
    if found.empty and not listed:
        findings.append(finding("BACKUP_MISSING", repo, after["name"], "there is nothing in the repository to verify"))
    for one in found.backups:
        if one.name in listed:
            findings += _of_backup(one, {one.name, *listed[one.name]["references"]}, kept, repo)
    findings += _of_archives(found, listed, repo)
    seen = {one.name for one in found.backups if one.status != "in-progress"}
    for backup in holdings(before, repo).backups:
        if backup["label"] in listed and backup["label"] not in seen:
            text = f"pgbackrest verify said nothing of backup {backup['label']}"
            findings.append(finding("BACKUP_NOT_VERIFIED", repo, backup["label"], text))
    if found.status == "error" and not findings and not found.files:
        text = "pgbackrest verify says status: error, and nothing that is wrong"
        findings.append(finding("VERIFY_NOT_UNDERSTOOD", repo, "output", text))
    running = [one.name for one in found.backups if one.status == "in-progress" and one.name not in listed]
    return findings, [{"what": f"backup {name}", "why": "it was being taken"} for name in running]


def _of_backup(one: Counted, chain: Collection[str], kept: Collection[BadFile], repo: int) -> list[Finding]:
    """What is wrong with a backup and is not said of a file of its chain."""
    findings = []
    if one.status == "manifest missing":
        text = f"backup {one.name} has neither backup.manifest nor its copy; it cannot be restored"
        findings.append(finding("MANIFEST_MISSING", repo, one.name, text))
    kinds = {file.kind for file in kept if file.path.split("/")[0] in chain}
    for kind, number in (("missing", one.missing), ("corrupt", one.corrupt), ("unreadable", one.other)):
        # What verify counts as other is corrupt or missing by its code.
        if number and kind not in kinds and not (kind == "unreadable" and kinds):
            text = f"{number} files of backup {one.name} are {kind}; pgBackRest's log says which"
            findings.append(finding(_OF_BACKUP[kind], repo, one.name, text))
    return findings


def _of_archives(found: Verified, listed: Mapping[str, Mapping[str, Any]], repo: int) -> list[Finding]:
    """What is wrong with archives and is not said of a segment."""
    if not found.archives and any(one["archive_start"] for one in listed.values()):
        text = "the repository has backups that need WAL, and no archive"
        return [finding("WAL_LOST", repo, "archive", text)]
    if any(_SEGMENT.match(file.path) for file in found.files):
        return []
    bad = [(one, one.corrupt + one.other) for one in found.archives if one.corrupt + one.other]
    return [
        finding("WAL_CORRUPT", repo, one.name, f"{number} WAL segments of archive {one.name} are not valid")
        for one, number in bad
    ]


def _kept(file: BadFile, listed: Collection[str], after: Mapping[str, Any], repo: int) -> bool:
    """Whether a bad file is of something that is still kept."""
    segment = _SEGMENT.match(file.path)
    if not segment:
        return file.path.split("/")[0] in listed
    archive = next((one for one in after["archives"] if (one["repo"], one["id"]) == (repo, segment[1])), None)
    return archive is not None and str(archive["min"] or "")[8:] <= segment[2][8:]


def _named(files: Collection[BadFile], listed: Mapping[str, Mapping[str, Any]], repo: int) -> list[Finding]:
    findings = []
    for file in list(files)[:SHOWN]:
        segment = _SEGMENT.match(file.path)
        if segment:
            text = f"WAL segment {segment[2]} of archive {segment[1]}: {file.text}"
            findings.append(finding(_OF_WAL[file.kind], repo, segment[2], text))
            continue
        holder = file.path.split("/")[0]
        needed = [label for label, one in listed.items() if label == holder or holder in one["references"]]
        text = f"{file.path}: {file.text}. Backups that need it: {', '.join(needed)}"
        findings.append(finding(_OF_BACKUP[file.kind], repo, file.path, text))
    if len(files) > SHOWN:
        text = f"{len(files) - SHOWN} more files are bad; pgBackRest's log has their names"
        findings.append(finding("FILE_CORRUPT", repo, "more files", text))
    return findings
