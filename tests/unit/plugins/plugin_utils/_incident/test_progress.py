# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._progress import Progress, pause_after, progress_file


def told(*samples: tuple[Any, Any, str], what: str = "restore", every: float = 4.0) -> list[Any]:
    progress = Progress()
    return [
        progress.line(
            json.dumps({"at": number, "what": what, "done": done, "total": total, "unit": unit}), number * every
        )
        for number, (done, total, unit) in enumerate(samples)
    ]


def test_bytes_are_told_with_per_cent_and_time_left() -> None:
    assert told((0, 5e9, "bytes"), (2.5e9, 5e9, "bytes"), (4.5e9, 5e9, "bytes")) == [
        "  restore: 0 bytes of 5.0 GB (0%)",
        "  restore: 2.5 of 5.0 GB (50%), about 4 s left",
        "  restore: 4.5 of 5.0 GB (90%), about 1 s left",
    ]


def test_without_a_total_only_what_is_done_is_told() -> None:
    assert told((7, None, "segments"), (9, None, "segments"), what="replay") == [
        "  replay: 7 segments",
        "  replay: 9 segments",
    ]


def test_the_same_content_is_told_once() -> None:
    progress = Progress()
    text = json.dumps({"what": "copy", "done": 1, "total": 2, "unit": "rows"})
    assert [progress.line(text, 0), progress.line(text, 3)] == ["  copy: 1 of 2 rows (50%)", None]


def test_a_new_part_of_the_step_starts_its_own_estimate() -> None:
    progress = Progress()
    lines = [
        progress.line(json.dumps({"what": what, "done": done, "total": 100, "unit": "rows"}), now)
        for what, done, now in (("copy", 0, 0), ("copy", 90, 10), ("index", 1, 12), ("index", 2, 14))
    ]
    assert lines[2] == "  index: 1 of 100 rows (1%)"
    assert lines[3] == "  index: 2 of 100 rows (2%), about 3 min 16 s left"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"what": "x"}', '{"what": "x", "done": "y"}'])
def test_a_file_that_is_half_written_is_passed_over(text: str) -> None:
    assert Progress().line(text, 0) is None


def test_long_steps_are_looked_at_less_often() -> None:
    assert [pause_after(seconds) for seconds in (0, 30, 600, 7200)] == [3.0, 3.0, 30.0, 60.0]


@pytest.mark.parametrize(
    ("module", "args", "file"),
    [
        ("postgresql_side_instance", {"path": "/var/lib/side/"}, "/var/lib/side/progress.json"),
        ("pgbackrest_standby", {"path": "/var/lib/pg/18/main"}, "/var/lib/pg/18/main.restoring"),
        ("postgresql_logical_backup", {"path": "/backups", "globals": True}, "/backups/progress.json"),
        ("postgresql_dump_restore", {"dump": "/backups/shop/1"}, "/backups/shop/1/progress.json"),
        ("postgresql_dump_restore", {"globals": "/backups/globals/1"}, "/backups/globals/1/progress.json"),
        ("postgresql_table_recovery", {"progress_file": "/run/it.json"}, "/run/it.json"),
        ("postgresql_prewarm", {"database": "shop"}, None),
        ("rds_restore", {"progress_file": "/run/it.json"}, "/run/it.json"),
    ],
)
def test_progress_is_looked_for_where_the_module_writes_it(
    module: str, args: dict[str, Any], file: Optional[str]
) -> None:
    assert progress_file(module, args) == file


def test_a_module_for_rds_gets_a_file_that_nobody_can_guess() -> None:
    first, second = (progress_file("rds_restore", {}) for _time in range(2))
    assert first != second
    assert str(first).startswith("/tmp/.dbre-recovery-")
