# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import (
    check_assertions,
    differences,
    parse_expected,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import kept_snapshot
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import (
    Sees,
    parse_snapshot,
    position,
)

EPOCH = 5 << 32


def snapshot(text: str) -> Sees:
    return parse_snapshot(text)


def test_a_snapshot_sees_what_is_before_its_end_and_does_not_run() -> None:
    found = snapshot("100:105:101,103")
    assert [xid for xid in range(99, 107) if found.sees(xid)] == [99, 100, 102, 104]
    # WAL has 32 bits of a transaction's number; around a new epoch the higher ones differ.
    young = snapshot(f"{EPOCH - 3}:{EPOCH + 2}:{EPOCH - 2}")
    assert [xid for xid in (0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF, 0, 1, 2, 3) if young.sees(xid)] == [
        0xFFFFFFFD, 0xFFFFFFFF, 0, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        (["100:103:"], 40),  # 103 committed after it: the position is that commit's
        (["100:104:"], 90),  # all are seen: the position is the end
        (["100:104:103"], 40),  # its record is there, and nobody sees it yet
        (["100:100:"], 10),
        (["100:104:101"], None),  # 101 is not seen, 102 behind it is: no position
        (["100:103:", "100:104:"], None),  # two databases, and a commit between them
        (["100:103:", "100:104:103"], 40),
    ],
)
def test_a_position_parts_what_is_seen_from_what_is_not(snapshots: list[str], expected: int | None) -> None:
    commits = [(10, 100), (20, 101), (30, 102), (40, 103), (95, 104)]
    assert position(commits, [snapshot(one) for one in snapshots], 90) == expected


def table(**values: Any) -> dict[str, Any]:
    return {"definition": "d", "rows": 3, "checksum": "5:1", **values}


def test_each_way_in_which_a_table_can_differ_is_told() -> None:
    here = {"a": table(), "b": table(rows=2), "c": table(checksum="5:2"), "d": table(definition="e"), "e": table()}
    there = {name: table() for name in "abcd"} | {"f": table(), "g": {"definition": "d"}}
    here["g"] = table()
    found, omitted = differences(here, there, "shop", 1)
    assert [one["message"] for one in found] == [
        "b in shop has 2 rows, 3 in production",
        "c in shop has 3 rows, 3 in production, and not the same",
        "d in shop has another definition",
        "e in shop is only in the restored server",
        "f in shop is only in production",
    ]
    assert [one["what"] for one in omitted] == ["rows of g in shop"]


@pytest.mark.parametrize(
    ("text", "expected"), [(">= 1000", (">=", Decimal(1000))), (" =-1.5 ", ("=", Decimal("-1.5")))]
)
def test_an_assertion_expects_a_number(text: str, expected: Any) -> None:
    assert parse_expected(text) == expected


@pytest.mark.parametrize("text", ["1000", "> abc", "", ">= 1; DROP TABLE x", "LIKE 5"])
def test_nothing_but_a_comparison_with_a_number_is_taken(text: str) -> None:
    with pytest.raises(RecoveryError, match="no comparison with a number"):
        parse_expected(text)


@pytest.mark.parametrize(
    ("change", "said"), [({"sql": ""}, "has no sql"), ({"extra": 1}, "'extra'"), ({"expect": "many"}, "'many'")]
)
def test_an_assertion_that_does_not_say_what_it_needs_is_refused(change: dict[str, Any], said: str) -> None:
    good = {"name": "orders", "database": "shop", "sql": "SELECT count(*) FROM orders", "expect": "> 0"}
    assert check_assertions([good]) == [good]
    with pytest.raises(RecoveryError, match=said):
        check_assertions([{**good, **change}])


def test_the_oldest_moment_that_was_kept_and_can_be_restored_is_taken(tmp_path: Path) -> None:
    facts = {
        "databases": [{"system_identifier": 7}],
        "backups": [{"stop_lsn": "0/5000000", "error": False}, {"stop_lsn": "0/1000000", "error": True}],
    }
    with pytest.raises(RecoveryError, match="no earlier test has kept"):
        kept_snapshot(str(tmp_path), facts)
    for name, lsn, cluster in (
        ("a", "0/4000000", "7"),
        ("b", "0/6000000", "7"),
        ("c", "0/7000000", "7"),
        ("d", "0/5500000", "8"),
    ):
        place = tmp_path / "verifications" / name
        place.mkdir(parents=True)
        (place / "snapshot.json").write_text(json.dumps({"lsn": lsn, "system_identifier": cluster}))
    (tmp_path / "verifications" / "c" / "snapshot.json").write_text("{")
    assert kept_snapshot(str(tmp_path), facts)["lsn"] == "0/6000000"
