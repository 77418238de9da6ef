# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a restore did not come to its end, and whether that says anything of the backup. Pure."""

from __future__ import annotations

import re

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import CODES, Finding, finding

# What strerror and PostgreSQL say of a full disk; below so many bytes a disk counts as full whatever was said.
FULL = re.compile("No space left on device|Disk quota exceeded|not enough disk space")
# PostgreSQL's hint on a host that lacks the place (create_tablespace_directories() in commands/tablespace.c).
UNMAPPED = re.compile(r'directory "[^"]+" does not exist')
NO_ROLE = re.compile(r'role "[^"]*" (?:does not exist|is not permitted to log in)')
# Commands of pgBackRest that only look into a repository.
LOOKING = ("info", "repo-ls", "repo-get")
# Of an extension that is not installed on the host, or for another version (PostgreSQL: utils/fmgr/dfmgr.c, and
# RmgrNotFound in access/transam/rmgr.c).
NO_LIBRARY = re.compile(
    r"could not access file \"|could not load library|could not find function \".*\" in file|incompatible library \"|"
    r"resource manager with ID \d+ not registered"
)
FULL_BELOW = 16 * 1024 * 1024


def in_one_line(error: Exception) -> str:
    """What an error says; of a server's only the first line, since those behind it may hold values of rows."""
    text = error.msg if isinstance(error, RecoveryError) else str(error).strip().partition("\n")[0]
    return " ".join(text.split()) or type(error).__name__


def restore_findings(error: RecoveryError, free: int, repo: int = 1) -> list[Finding]:
    """The findings that an error of a restore is; ``free`` are the bytes that were free on its disk then."""
    details, text = error.details, error.msg
    if details.get("code") in CODES:  # pgBackRest's own errors have a number there
        return [finding(str(details["code"]), repo, "restore", text)]
    unfit = isinstance(error, UnfitHost)
    if "disk" in details or FULL.search(text) or (free < FULL_BELOW and not unfit):
        return [finding("NO_ROOM", repo, "restore", f"{text} ({free} bytes were free)")]
    if details.get("tablespace") or UNMAPPED.search(text):
        return [finding("TABLESPACE_UNMAPPED", repo, "restore", text)]
    if unfit or NO_LIBRARY.search(text):
        return [finding("HOST_UNFIT", repo, "restore", text)]
    if details.get("damaged_files"):
        damaged = details["damaged_files"].items()
        return [
            finding("PAGE_CHECKSUM", repo, f"{file}:{blocks}" if blocks else file, text) for file, blocks in damaged
        ]
    if NO_ROLE.search(text):
        text = f"{text}. Name a superuser that the backup has (postgresql_superuser)"
        return [finding("LOGIN_FAILED", repo, "restore", text)]
    if details.get("repositories") or details.get("command") in LOOKING:
        return [finding("REPOSITORY_UNREADABLE", repo, "restore", text)]
    if details.get("sets"):
        return [finding("PITR_TARGET_BEFORE_BACKUP", repo, "restore", text)]
    if details.get("target_not_reached"):
        return [finding("PITR_TARGET_UNREACHED", repo, "restore", text)]
    if "replay_lsn" in details:
        return [finding("TIMED_OUT", repo, "restore", text)]
    return [finding("RESTORE_FAILED", repo, "restore", text)]
