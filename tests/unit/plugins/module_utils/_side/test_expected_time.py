# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._side.expected import (
    expected,
    expected_shown,
    history_of,
)

MB = 1_000_000


def made(*speeds: Any, repo: int = 1) -> dict[str, Any]:
    return {"attempts": [{"repo": repo, "bytes_per_second": one} for one in speeds]}


def test_the_median_of_the_newest_tests_of_a_repository_says_how_long_it_takes() -> None:
    slow = [{"restore": MB, "replay": None}] * 9
    quick = [{"restore": 100 * MB, "replay": 10 * MB}] * 3
    history = made(*slow, *quick)
    found = expected(history, 1, 6000 * MB, 40 * MB)
    assert found == {
        "seconds": {"restore": 60.0, "replay": 4.0},
        "bytes_per_second": {"restore": 100 * MB, "replay": 10 * MB},
        "tests": 5,
    }
    (line,) = expected_shown(found)
    assert line.startswith("restore 1 min at 100 MB/s, replay 4 s at ")
    assert "5 restore tests" in line


@pytest.mark.parametrize(
    "history",
    [{}, {"attempts": []}, {"attempts": [3, {"repo": 1}]}, made({"restore": 5}, repo=2), made({"restore": "5"})],
)
def test_nothing_is_promised_where_nothing_was_measured(history: dict[str, Any]) -> None:
    assert expected(history, 1, MB, MB) is None


@pytest.mark.parametrize("text", [None, "", "[]", "{"])
def test_a_history_that_is_none_says_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "verification-main.json").write_text(text)
    assert history_of(str(tmp_path), "main") == {}
