# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._verification.backups import completed, sized, usual
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import (
    CODES,
    FAILED,
    NOTICE,
    UNKNOWN,
    VERIFIED,
    check_ignored,
    conclude,
    finding,
    verdict_of,
)

DAY = 86400.0
NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc).timestamp()
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": DAY, "incr": 3600.0}}  # grace 2h


def backup(kind: str, hours_ago: float, size: int = 100, error: bool | None = False, repo: int = 1) -> dict[str, Any]:
    return {
        "label": f"{kind}-{hours_ago}",
        "type": kind,
        "repo": repo,
        "database_id": 1,
        "stop_time": datetime.fromtimestamp(NOW - hours_ago * 3600, timezone.utc).isoformat(),
        "size": size,
        "error": error,
        "references": [],
        "pgbackrest_version": "2.45",
    }


def stanza(*backups: dict[str, Any], code: int = 0, message: str = "ok") -> dict[str, Any]:
    status = {"code": code, "message": message}
    return {
        "name": "main",
        "status": status,
        "repositories": [{"repo": 1, "status": status}, {"repo": 2, "status": status}],
        "databases": [{"repo": 1, "id": 1}, {"repo": 2, "id": 1}],
        "backups": list(backups),
    }


def codes(facts: dict[str, Any], policy: dict[str, Any] | None = POLICY, repo: int = 1) -> list[tuple[str, str]]:
    return [(item["code"], item["subject"]) for item in completed(facts, repo, policy, NOW)[0]]


def test_each_type_is_judged_by_its_own_schedule() -> None:
    assert codes(stanza(backup("full", 25.9), backup("incr", 2.9))) == []
    assert codes(stanza(backup("full", 26.1), backup("incr", 2.9))) == [("BACKUP_STALE", "full-26.1")]
    assert codes(stanza(backup("full", 25.9), backup("incr", 3.1))) == [("BACKUP_STALE", "incr-3.1")]


def test_a_full_backup_serves_as_any_type() -> None:
    assert codes(stanza(backup("full", 1))) == []
    assert codes(stanza(backup("incr", 1))) == [("BACKUP_MISSING", "full")]


def test_each_repository_has_to_have_them() -> None:
    facts = stanza(backup("full", 1))
    assert codes(facts, repo=2) == [("BACKUP_MISSING", "full"), ("BACKUP_MISSING", "incr")]


def test_without_a_policy_no_age_is_judged_and_that_is_said() -> None:
    found, omitted = completed(stanza(backup("full", 9999)), 1, None, NOW)
    assert (found, [item["why"] for item in omitted]) == ([], ["no backup policy was given"])


def test_a_backup_of_tomorrow_proves_nothing() -> None:
    assert codes(stanza(backup("full", -1))) == [("BACKUP_IN_FUTURE", "full--1")] * 2


def test_damaged_pages_of_a_backup_that_a_newer_full_one_replaced_are_a_notice() -> None:
    old, new = backup("full", 20, error=True), backup("full", 1)
    assert codes(stanza(old, new)) == [("BACKUP_PAGE_ERRORS_BEFORE", "full-20")]
    assert CODES["BACKUP_PAGE_ERRORS_BEFORE"].leads_to == NOTICE
    built = {**backup("incr", 0.5), "references": ["full-20"]}
    assert codes(stanza(old, built)) == [("BACKUP_PAGE_ERRORS", "full-20")]
    assert codes(stanza({**old, "error": None}, new)) == []


def test_damaged_pages_count_and_not_knowing_is_no_green() -> None:
    assert codes(stanza(backup("full", 1, error=True))) == [("BACKUP_PAGE_ERRORS", "full-1")]
    assert codes(stanza(backup("full", 1, error=None))) == [("BACKUP_PAGE_ERRORS_UNKNOWN", "full-1")]


@pytest.mark.parametrize(
    ("code", "found"),
    [(1, "STANZA_MISSING"), (3, "STANZA_MISSING"), (99, "REPOSITORY_UNREADABLE"), (2, "BACKUP_MISSING")],
)
def test_what_the_repository_says_of_itself_comes_first(code: int, found: str) -> None:
    assert {one for one, _subject in codes(stanza(code=code, message="no"))} == {found}


@pytest.mark.parametrize(
    ("earlier", "size", "low", "high"),
    [
        ([100, 100, 100], 50, True, False),
        ([100, 100, 100], 80, False, False),
        ([100, 101, 99, 100], 74, True, False),
        ([100, 150, 225, 337], 505, False, False),  # steady growth
        ([100, 150, 225, 337], 150, True, False),  # a loss that a median would hide
        ([100, 100, 100], 400, False, True),
        ([100, 100, 100, 100, 45], 45, True, False),  # the loss of yesterday is still one
        ([100, 40, 100, 40, 100], 45, False, False),  # that is how this one is
    ],
)
def test_growth_is_told_from_what_is_unusual(earlier: list[float], size: float, low: bool, high: bool) -> None:
    known = usual(earlier)
    assert known is not None
    assert (size < known.low, size > known.high) == (low, high)


def test_sizes_are_compared_with_those_of_their_own_type() -> None:
    fulls = [backup("full", hours, size=100) for hours in (96, 72, 48)]
    incrs = [backup("incr", hours, size=40) for hours in (95, 71, 47)]
    found, omitted = sized(stanza(*fulls, *incrs, backup("full", 24, size=50)), 1, ["full", "incr"])
    assert [(item["code"], item["subject"]) for item in found] == [("SIZE_DROPPED", "full-24")]
    assert [item["what"] for item in omitted] == ["size of incr backups in repository 1"]


def test_what_is_not_known_is_never_green_and_failure_decides() -> None:
    assert verdict_of([VERIFIED, UNKNOWN]) == UNKNOWN
    assert verdict_of([UNKNOWN, FAILED]) == FAILED
    assert verdict_of([VERIFIED]) == VERIFIED


def test_a_finding_is_ignored_only_with_a_reason() -> None:
    found = [finding("SIZE_DROPPED", 1, "B", "half of it")]
    ignore = check_ignored({"SIZE_DROPPED": "a table was dropped"})
    assert conclude("size", found, {})["verdict"] == FAILED
    ignored = conclude("size", found, ignore)
    assert (ignored["verdict"], ignored["findings"][0]["ignored"]) == (VERIFIED, "a table was dropped")
    for wrong in ({"SIZE_DROPPED": " "}, {"SIZE_DROPPED": None}, {"SIZE_FELL": "why"}):
        with pytest.raises(RecoveryError):
            check_ignored(wrong)


def test_a_notice_changes_no_verdict() -> None:
    assert conclude("size", [finding("SIZE_JUMPED", 1, "B", "twice as much")], {})["verdict"] == VERIFIED
    assert {code.leads_to for code in CODES.values()} == {FAILED, UNKNOWN, "notice"}


def test_every_code_is_documented_as_it_is() -> None:
    page = (Path(__file__).resolve().parents[5] / "docs" / "verification.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.split("`")[1].isupper()]
    assert rows == [f"| `{name}` | {code.leads_to.replace('_', ' ')} | {code.text} |" for name, code in CODES.items()]
