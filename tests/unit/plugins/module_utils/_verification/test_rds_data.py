# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restored copy on AWS is called when it is compared without a position in WAL, and what errors mean."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import CODES
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_data import (
    against_production,
    equal_to_kept,
    moved_since,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_test import rds_findings


def table(rows: int, checksum: str = "5:1", definition: str = "d") -> dict[str, Any]:
    return {"rows": rows, "checksum": checksum, "definition": definition}


def codes(
    copy: Optional[dict[str, Any]], before: dict[str, Any], after: Optional[dict[str, Any]] = None
) -> tuple[list[str], int]:
    """Codes of the findings, and how many tables were left out."""
    here = {} if copy is None else {"shop": copy}
    found, omitted, _facts = against_production(here, {"shop": before}, {"shop": before if after is None else after})
    return [item["code"] for item in found], len(omitted)


def test_what_production_had_before_and_after_must_be_in_the_copy() -> None:
    orders = {"orders": table(100)}
    assert codes(orders, orders) == ([], 0)
    assert codes({"orders": table(99)}, orders) == (["DATA_DIFFERS"], 0)
    assert codes({"orders": table(100, "5:2")}, orders) == (["DATA_DIFFERS"], 0)
    assert codes({}, orders) == (["DATA_DIFFERS"], 0)
    assert codes(None, orders) == (["DATA_NOT_COMPARABLE"], 0)
    assert codes({**orders, "ghost": table(1)}, orders) == (["DATA_DIFFERS"], 0)


@pytest.mark.parametrize(
    ("rows", "code"), [(100, []), (103, []), (88, []), (0, ["DATA_NOT_COMPARABLE"]), (200, ["DATA_NOT_COMPARABLE"])]
)
def test_what_is_written_to_is_left_out_unless_its_size_is_wholly_another(rows: int, code: list[str]) -> None:
    before, after = {"orders": table(100)}, {"orders": table(103, "5:2")}
    assert codes({"orders": table(rows, "5:3")}, before, after) == (code, 1)


def test_a_table_that_is_written_to_and_missing_in_the_copy_is_missing() -> None:
    assert codes({}, {"orders": table(100)}, {"orders": table(101)}) == (["DATA_DIFFERS"], 1)
    assert codes({}, {"orders": table(100)}, {}) == ([], 1), "it was dropped meanwhile"


def test_at_the_same_moment_nothing_may_differ_and_since_then_everything_may() -> None:
    kept = {"id": "one", "time": "2026-11-25T03:11:59+00:00", "prints": {"shop": {"orders": table(100)}}}
    found, _omitted, _facts = equal_to_kept({"shop": {"orders": table(99)}}, kept)
    assert [(item["code"], "the test one" in item["message"]) for item in found] == [("DATA_DIFFERS", True)]
    found, _omitted, _facts = equal_to_kept({}, kept)
    assert [item["code"] for item in found] == ["DATA_NOT_COMPARABLE"]
    found, _omitted, facts = moved_since({"shop": {"items": table(1)}}, kept)
    assert [CODES[item["code"]].leads_to for item in found] == ["notice"]
    assert facts["databases"]["shop"] == {"same": 0, "changed": 0, "gone": ["orders"], "new": ["items"]}


@pytest.mark.parametrize(
    ("details", "code"),
    [
        ({"status": "incompatible-restore"}, "RESTORE_FAILED"),
        ({"status": "insufficient-capacity"}, "AWS_REFUSED"),
        ({"status": "creating"}, "TIMED_OUT"),
        ({"code": "COPY_IN_THE_WAY"}, "COPY_IN_THE_WAY"),
        ({"windows": []}, "BACKUP_MISSING"),
        ({}, "AWS_REFUSED"),
    ],
)
def test_only_a_restore_that_aws_gave_up_says_that_the_backups_are_bad(details: dict[str, Any], code: str) -> None:
    (found,) = rds_findings(RecoveryError("it did not work", **details))
    assert found["code"] == code
