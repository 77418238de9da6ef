# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the repository has all files of a backup set, before anything is restored from it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

# Of compressed files and block incrementals (pgBackRest: src/common/compress/helper.c, src/command/backup/common.h).
_SUFFIX = re.compile(r"\.(?:gz|lz4|zst|bz2|pgbi)$")
# Exit codes of repo-get for a file that is not there, or whose content is wrong: checksum, file-invalid, format,
# file-missing, crypto (pgBackRest: src/build/error/error.yaml).
GONE = (1, 26, 28, 29, 55, 95)
_DATABASE = re.compile(r"(?:pg_data/base|pg_tblspc/\d+/[^/]+)/(\d+)/")


def needed_files(manifest: str, label: str, without: Collection[int]) -> dict[str, set[str]]:
    """Files that a set needs, by the label of the backup that holds them, but for those of databases ``without``.

    ``manifest`` is the text of the set's backup.manifest: in section ``target:file`` each file with its values in JSON,
    ``reference`` where an earlier backup holds it, ``bni`` where it is in a bundle (pgBackRest: src/info/manifest.c,
    backupFileRepoPath in src/command/backup/common.c). Empty files need not be there.
    """
    needed: dict[str, set[str]] = {}
    section = ""
    for line in manifest.splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "target:file" and "={" in line:
            name, value = line.split("={", 1)
            file = json.loads("{" + value)
            database = _DATABASE.match(name)
            if not file.get("size") or (database is not None and int(database.group(1)) in without):
                continue
            path = f"bundle/{file['bni']}" if file.get("bni") else name
            needed.setdefault(file.get("reference", label), set()).add(path)
    return needed


def missing_files(needed: Collection[str], listing: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of ``needed`` that a repo-ls listing of their backup does not have, or has empty."""
    present = {name for name, entry in listing.items() if entry.get("type") == "file" and entry.get("size") != 0}
    present |= {_SUFFIX.sub("", name) for name in present}
    return sorted(set(needed) - present)


def read_manifest(backrest: PgBackRest, label: str) -> Optional[str]:
    """Text of a set's backup.manifest; None when the repository does not have it, or has it damaged.

    Raises RecoveryError where it could not be read, which says nothing of the set.
    """
    try:
        return backrest.repo_get(f"backup/{backrest.stanza}/{label}/backup.manifest")
    except RecoveryError as error:
        if error.details.get("rc") in GONE:
            return None
        raise


def lacking(backrest: PgBackRest, label: str, manifest: Optional[str], without: Collection[int] = ()) -> list[str]:
    """Files that a set needs, by its manifest, and the repository does not have, each as ``<label>/<file>``."""
    if manifest is None:
        return [f"{label}/backup.manifest"]
    base = f"backup/{backrest.stanza}"
    needed = needed_files(manifest, label, without)
    found: list[str] = []
    for holder, files in sorted(needed.items()):
        listing = backrest.repo_ls(f"{base}/{holder}", recurse=True)
        found += [f"{holder}/{name}" for name in missing_files(files, listing)]
    return found
