# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.plugin_utils._audit.rows import Answer, rows
from ansible_collections.dbre.recovery.plugins.plugin_utils._audit.shown import page, table

HOUR, DAY, NOW = 3600.0, 86400.0, 1795500000.0
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": DAY, "incr": HOUR}}
POLICY["seconds"]["restore_test"] = 7 * DAY
TESTED = {"ended": NOW - DAY, "verdict": "verified", "rto_seconds": 60.0, "rpo_seconds": 1.0, "system_identifier": 42}
BACKUP = {"label": "20261123-214825F", "ended": NOW - HOUR, "usual_seconds": 60, "errors": False}


def found(identifier: int = 42, **tests: Any) -> dict[str, Any]:
    repository = {
        "status": {"code": 0, "message": "ok"},
        "backups": dict.fromkeys(("full", "diff", "incr"), BACKUP),
        "reaches_back_to": NOW - 8 * DAY,
        "page_errors": False,
        "lag_seconds": 0.0,
    }
    status = {"code": 0, "message": "ok"}
    known = {"stanza": "main", "status": status, "system_identifier": identifier, "repositories": {"1": repository}}
    return {"found": known, "restore_tests": tests, "now": NOW}


def answer(host: str, **said: Any) -> Answer:
    usual = {
        "tier": "standard",
        "tiers": {},
        "overrides": {},
        "policy": {"policy": POLICY},
        "found": found(),
        "rds": {},
        "rds_tests": {},
    }
    return Answer(host=host, **{**usual, **said})  # type: ignore[typeddict-item]


def test_those_who_miss_something_stand_first_with_their_reasons() -> None:
    said = rows([answer("good", found=found(main=[TESTED])), answer("untested", found=found(43))], [], NOW)
    assert [(row["host"], row["verdict"], row["why"]) for row in said] == [
        ("untested", "not_met", ["no restore was ever tested"]),
        ("good", "met", []),
    ]


def test_a_host_that_cannot_be_reached_is_a_row_and_not_green() -> None:
    gone = {"unreachable": True, "msg": "Failed to connect\nto the host"}
    (row,) = rows([answer("gone", policy=gone, found=gone)], [], NOW)
    assert row["verdict"] == "unknown"
    assert row["why"] == ["the host could not be reached: Failed to connect to the host"]
    assert row["objectives"]["rpo"] == 14400


def test_a_policy_that_cannot_be_kept_is_not_met_and_one_that_nobody_could_look_at_is_unknown() -> None:
    tested = found(main=[TESTED])
    impossible = {"failed": True, "msg": "the backup policy of db1 cannot be kept", "reasons": ["window"]}
    broken = {"failed": True, "msg": "no systemd-analyze"}
    (row,) = rows([answer("db1", policy=impossible, found=tested)], [], NOW)
    assert (row["verdict"], row["why"]) == ("not_met", ["the backup policy of db1 cannot be kept"])
    (row,) = rows([answer("db1", policy=broken, found=tested)], [], NOW)
    assert (row["verdict"], row["why"]) == ("unknown", ["no systemd-analyze"])


def test_a_tier_that_is_none_is_said() -> None:
    (row,) = rows([answer("db1", policy={}, tier="gold")], [], NOW)
    assert row["verdict"] == "not_met"
    assert "'gold' is no tier" in row["why"][0]


def test_restore_tests_of_another_host_count_for_the_cluster_they_name() -> None:
    mine = answer("db1", found=found())
    tester = {"restore_tests": {"main": [TESTED]}}
    (row,) = rows([mine], [tester], NOW)
    assert (row["verdict"], row["restore_test"]) == ("met", {"ago": DAY, "verdict": "verified"})
    nameless = {"restore_tests": {"main": [{**TESTED, "system_identifier": None}]}}
    other = answer("db2", found=found(43))
    assert {row["verdict"] for row in rows([mine, other], [nameless], NOW)} == {"not_met"}


def test_a_database_of_rds_has_a_row() -> None:
    window = {"kind": "automated", "earliest": "2026-11-01T00:00:00+00:00", "latest": "2026-11-24T05:55:00+00:00"}
    snapshot = {"type": "automated", "status": "available", "created": "2026-11-24T04:00:00+00:00"}
    settings = {"DBInstanceIdentifier": "shop", "DbiResourceId": "db-XYZ"}
    said = {"windows": [window], "snapshots": [snapshot], "resource_id": "db-XYZ", "settings": settings}
    (row,) = rows([answer("shop", found={}, policy={}, rds=said)], [], NOW)
    assert (row["name"], row["verdict"]) == ("db-XYZ", "not_met")
    assert row["why"] == ["no restore was ever tested"]
    tests = {"restore_tests": {"other": [], "shop": [{**TESTED, "system_identifier": None}]}}
    (row,) = rows([answer("shop", found={}, policy={}, rds=said, rds_tests=tests)], [], NOW)
    assert (row["restore_test"]["verdict"], row["verdict"]) == ("verified", "met")


def test_the_table_and_the_page_hold_every_host_and_every_reason() -> None:
    said = rows([answer("good", found=found(main=[TESTED])), answer("<b>untested</b>", found=found(43))], [], NOW)
    text = table(said)
    assert "good             standard  1 h   1 h   1 h   0 s        8 d     verified, 1 d  1 min  1 s  met" in text
    assert "<b>untested</b>: no restore was ever tested" in text
    assert text.endswith("2 hosts: 1 met, 1 not met, 0 unknown")
    shown = page({"format": 1, "made": "2026-11-24T06:00:00+00:00", "hosts": said})
    assert "&lt;b&gt;untested&lt;/b&gt;" in shown
    assert "<b>untested" not in shown
    assert "no restore was ever tested" in shown
