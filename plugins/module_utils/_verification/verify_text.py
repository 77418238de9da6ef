# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand what ``pgbackrest verify --output=text --verbose`` prints, and never its exit status.

Recorded with pgBackRest 2.45, 2.55 and 2.60 (src/command/verify/verify.c). It exits 0 over ``status: error``, and says
``status: ok`` over a missing manifest. The names of files are in what it logs as INFO only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Optional

COUNTS = re.compile(r"    missing: (\d+), checksum invalid: (\d+), size invalid: (\d+), other: (\d+)\Z")
ARCHIVE = re.compile(r"  archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)\Z")
BACKUP = re.compile(
    r"  backup: (\S+), status: (valid|invalid|manifest missing|in-progress), "
    r"total files checked: (\d+), total valid files: (\d+)\Z"
)
NONE = ("  archiveId: none found", "  backup: none found")
NOTHING = "no archives or backups exist in the repo"
UNUSABLE = re.compile(r"No usable (backup|archive)\.info file\Z")
# In the log: what is wrong with a file, whose path begins with the backup's label or the archive's id. A segment that
# is gone is a warning there and no error, as it may have expired.
BAD = re.compile(
    r"(?:P\d+ +)?(?:INFO|WARN): "
    r"(file missing|invalid checksum|invalid size|invalid result) '?([^\s']+?)'?(?::? (\[.*))?\Z"
)
ERROR_CODE = re.compile(r"\[(\d+)\]")

# Codes of errors (src/build/error/error.yaml) that say that the content is wrong: assert, checksum, file-invalid,
# format, file-missing, crypto. Any other, such as file-open, protocol or host-connect, says that it was not read.
DAMAGE = frozenset([25, 26, 28, 29, 55, 95])


@dataclass
class Counted:
    """An archive by its id, or a backup by its label, with how many of its files were checked and valid."""

    name: str
    status: str
    checked: int
    valid: int
    missing: int = 0
    corrupt: int = 0
    other: int = 0

    @property
    def consistent(self) -> bool:
        return self.checked == self.valid + self.missing + self.corrupt + self.other


@dataclass(frozen=True)
class BadFile:
    """A file by its path below the stanza; ``kind`` is missing, corrupt or unreadable."""

    path: str
    kind: str
    text: str


@dataclass
class Verified:
    """What verify said. ``strange`` are lines that are not understood: where there is one, nothing is known."""

    status: str = ""
    empty: bool = False
    unusable: list[str] = field(default_factory=list)
    archives: list[Counted] = field(default_factory=list)
    backups: list[Counted] = field(default_factory=list)
    files: list[BadFile] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def _counts(found: Verified, last: Optional[Counted], line: str) -> bool:
    counts = COUNTS.match(line)
    if counts is None or last is None:
        return False
    missing, checksum, size, other = map(int, counts.groups())
    last.missing, last.corrupt, last.other = missing, checksum + size, other
    return True


def parse_verify(stdout: str, stanza: str, log: str = "") -> Verified:
    """What verify printed of a stanza; ``log`` is its standard error with log level info."""
    found = Verified(files=bad_files(log))
    lines = [line for line in stdout.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != f"stanza: {stanza}" or lines[1] not in ("status: ok", "status: error"):
        found.strange = lines[:3] or ["nothing"]
        return found
    found.status = lines[1].removeprefix("status: ")
    last: Optional[Counted] = None
    for line in lines[2:]:
        archive, backup = ARCHIVE.match(line), BACKUP.match(line)
        unusable = UNUSABLE.match(line.strip())
        if archive:
            last = Counted(archive[1], "", int(archive[2]), int(archive[3]))
            found.archives.append(last)
        elif backup:
            last = Counted(backup[1], backup[2], int(backup[3]), int(backup[4]))
            found.backups.append(last)
        elif unusable:
            found.unusable.append(f"{unusable[1]}.info")
        elif line.strip() == NOTHING:
            found.empty = True
        elif line not in NONE and not _counts(found, last, line):
            found.strange.append(line)
    found.strange += [
        f"{one.name}: the numbers do not add up" for one in found.archives + found.backups if not one.consistent
    ]
    if not (found.archives or found.backups or found.unusable or found.empty or found.strange):
        found.strange.append("no word of archives or backups")
    return found


def bad_files(log: str) -> list[BadFile]:
    """Files that the log calls bad, each once."""
    found: dict[str, BadFile] = {}
    for line in log.splitlines():
        match = BAD.match(line)
        if not match:
            continue
        what, path, text = match[1], match[2], match[3] or ""
        code = ERROR_CODE.match(text)
        kind = "missing" if what == "file missing" else "corrupt"
        if what == "invalid result" and (code is None or int(code[1]) not in DAMAGE):
            kind = "unreadable"
        elif code and int(code[1]) == 55:
            kind = "missing"
        found[path] = BadFile(path, kind, f"{what} {text}".strip())
    return list(found.values())
