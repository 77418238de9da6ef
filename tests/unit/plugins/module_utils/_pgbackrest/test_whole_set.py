# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a backup set the repository lacks, from a manifest that pgBackRest 2.45 wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.whole_set import missing_files, needed_files

DATA = Path(__file__).parent / "data"
MANIFEST = (DATA / "2.45" / "backup-tablespace.manifest").read_text()
FULL = "20261123-220209F"


def listing(*names: str, size: int = 10) -> dict[str, dict[str, Any]]:
    return {name: {"type": "file", "size": size} for name in names}


def test_files_are_looked_for_in_the_backup_that_holds_them() -> None:
    needed = needed_files(MANIFEST, "incr", [])
    assert "pg_data/base/16384/1259" in needed["incr"]
    assert "pg_data/base/1/PG_VERSION" in needed[FULL]
    assert set(needed) == {"incr", FULL}


def test_databases_that_are_left_out_need_no_files_in_a_tablespace_either() -> None:
    needed = needed_files(MANIFEST, "incr", [16384])
    assert not [name for names in needed.values() for name in names if "/16384/" in name]
    assert "pg_data/base/1/PG_VERSION" in needed[FULL]


def test_compressed_files_and_bundles_are_known_and_what_is_gone_or_empty_is_missing() -> None:
    manifest = (
        '[target:file]\npg_data/a={"size":1}\npg_data/b={"size":1}\npg_data/c={"size":0}\n'
        'pg_data/d={"bni":7,"bno":3,"size":1}\npg_data/e={"bims":8,"size":1}\n[target:path]\npg_data/f={}\n'
    )
    needed = needed_files(manifest, "set", [])["set"]
    whole = listing("pg_data/a.lz4", "pg_data/b", "bundle/7", "pg_data/e.pgbi")
    assert missing_files(needed, whole) == []
    assert missing_files(needed, {}) == ["bundle/7", "pg_data/a", "pg_data/b", "pg_data/e"]
    assert missing_files(needed, {**whole, **listing("pg_data/b", size=0)}) == ["pg_data/b"]
