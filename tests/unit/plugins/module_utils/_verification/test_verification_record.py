# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import parse
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import conclude, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import amcheck_findings
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import restore_point

NOW = "2026-11-29T10:10:00+00:00"
MOMENTS = {
    "begin": "2026-11-29T10:00:00.000000+00:00",
    "restore": "2026-11-29T10:02:00.000000+00:00",
    "replay": "2026-11-29T10:03:00.500000+00:00",
    "ready": "2026-11-29T10:03:01.000000+00:00",
    "checked": "2026-11-29T10:05:01.000000+00:00",
}
POLICY = {"seconds": {"rto": 3600, "rpo": 60}}


def made(
    *checks: Any,
    moments: dict[str, str] | None = None,
    policy: Any = None,
    attempt: str = "a",
    loss: Any = None,
) -> Any:
    return record.report(
        checks,
        attempt={"id": attempt, "began": MOMENTS["begin"]},
        now=NOW,
        moments=MOMENTS if moments is None else moments,
        policy=policy or POLICY,
        facts={"stanza": "main", "set": "F", "bytes": 7},
        ignore={},
        loss=loss,
    )


SOUND = conclude("integrity", [], {})
BAD = conclude("integrity", [finding("SEQUENCE_BEHIND", 1, "shop: s", "behind")], {})
OPEN = conclude("boundary", [finding("CHECK_FAILED", 1, "boundary", "no WAL")], {}, [{"what": "x", "why": "y"}])


def test_phases_are_timed_and_compared_with_the_objective() -> None:
    found = made(SOUND)
    assert found["seconds"] == {"restore": 120.0, "replay": 60.5, "ready": 0.5, "checked": 120.0}
    assert (found["rto"], found["verdict"]) == ({"seconds": 181.0, "objective": 3600.0, "met": True}, "verified")
    late = made(SOUND, policy={"seconds": {"rto": 180, "rpo": 60}})
    assert (late["verdict"], [item["code"] for item in late["findings"]]) == ("failed", ["RTO_EXCEEDED"])


def test_a_restore_that_did_not_end_has_no_rto() -> None:
    some = {name: MOMENTS[name] for name in ("begin", "restore")}
    assert (made(BAD, moments=some)["rto"], made(BAD, moments={})["seconds"]) == (None, {})


def test_nothing_checked_is_nothing_verified() -> None:
    assert made()["verdict"] == "could_not_verify"
    assert made(SOUND, OPEN)["verdict"] == "could_not_verify"


def test_what_would_be_lost_is_compared_with_the_objective() -> None:
    assert made(SOUND)["rpo"] is None
    found = made(SOUND, loss={"seconds": 59.96, "transactions": "7"})
    assert found["rpo"] == {"seconds": 60.0, "transactions": 7, "objective": 60.0, "met": True}
    late = made(SOUND, loss={"seconds": 61, "transactions": 7})
    assert (late["verdict"], [item["code"] for item in late["findings"]]) == ("failed", ["RPO_EXCEEDED"])
    assert "7 transactions would have been lost, of 61.0 s, promised 60 s" in record.shown(late)


def test_speeds_are_bytes_a_second_of_what_was_long_enough_to_measure() -> None:
    assert record.speeds(3_000_000, 1.5, {"bytes": 10, "seconds": 0.0}) == {"restore": 2_000_000, "replay": None}
    assert record.speeds(3_000_000, None, None) == {"restore": None, "replay": None}


def test_an_attempt_is_in_the_history_before_it_ends(tmp_path: Path) -> None:
    path = record.history_path(str(tmp_path), "main")
    record.begin(path, "main", "a", MOMENTS["begin"])
    ((entry,),) = (json.loads(Path(path).read_text())["attempts"],)
    assert (entry["id"], entry["ended"], entry["verdict"]) == ("a", None, None)
    record.begin(path, "main", "b", NOW)
    record.end(path, made(BAD, attempt="b"))
    first, second = record.read_history(path)["attempts"]
    assert first == {**entry, "ended": NOW, "verdict": "could_not_verify", "codes": ["KILLED"]}
    assert (second["verdict"], second["codes"], second["ended"], second["set"]) == (
        "failed",
        ["SEQUENCE_BEHIND"],
        NOW,
        "F",
    )
    for number in range(record.KEPT + 5):
        record.begin(path, "main", str(number), NOW)
    assert len(record.read_history(path)["attempts"]) == record.KEPT


def test_metrics_understand_the_history_killed_and_ended(tmp_path: Path) -> None:
    path = record.history_path(str(tmp_path), "main")
    record.begin(path, "main", "a", MOMENTS["begin"])
    record.end(path, made(SOUND, attempt="a"))
    record.begin(path, "main", "b", NOW)
    ended, killed = parse(Path(path).read_text())
    assert (ended.verdict, ended.rto, ended.rpo) == ("verified", 181.0, None)
    assert (killed.verdict, killed.ended) == (None, None)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99, "attempts": []}', '{"schema": 1}'])
def test_a_file_that_is_no_history_begins_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verification-main.json"
    path.write_text(text)
    record.begin(str(path), "main", "a", NOW)
    assert [one["id"] for one in record.read_history(str(path))["attempts"]] == ["a"]


def test_junit_tells_failures_from_what_could_not_be_told() -> None:
    suite = ElementTree.fromstring(record.junit(made(SOUND, BAD, OPEN)).split("\n", 1)[1])
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [child.tag for case in suite for child in case] == ["failure", "error"]


def test_people_are_told_the_verdict_first_and_what_was_not_checked_last() -> None:
    lines = record.shown(made(BAD, OPEN)).splitlines()
    assert lines[0] == "FAILED: stanza 'main'"
    assert lines[-2:] == ["What was not checked, and why:", "- x: y"]


def test_pg_amcheck_names_each_relation_once() -> None:
    text = (
        'btree index "shop.public.a_pkey":\n    ERROR:  heap tuple (0,1) from table "a" lacks matching index tuple\n'
        'heap table "shop.public.a", block 0, offset 2, attribute 1:\n    attribute ends before its header\n'
        'heap table "shop.public.a", block 0, offset 3, attribute 1:\n    attribute ends before its header\n'
    )
    assert [subject for subject, _text in amcheck_findings(text)] == ["shop.public.a_pkey", "shop.public.a"]


def test_a_relation_with_an_odd_name_is_found_corrupt() -> None:
    text = (
        'btree index "shop.pub"lic.a\nb":\n    ERROR:  it is "broken":\n'
        'heap table "shop.public.c, block", block 2:\n    bad\n'
    )
    assert [subject for subject, _text in amcheck_findings(text)] == ['shop.pub"lic.a\nb', "shop.public.c, block"]


def stanza(newest: str, *stops: str) -> dict[str, Any]:
    backups = [
        {
            "label": stop,
            "repo": 1,
            "database_id": 1,
            "archive_start": "000000010000000000000002",
            "start_lsn": "0/2000028",
            "stop_lsn": stop,
            "error": False,
        }
        for stop in stops
    ]
    archive = {"id": "15-1", "repo": 1, "database_id": 1, "min": "000000010000000000000001", "max": newest}
    return {"name": "main", "databases": [{"repo": 1, "id": 1}], "archives": [archive], "backups": backups}


def test_the_end_of_the_archive_is_where_its_newest_segment_begins() -> None:
    found = restore_point(stanza("00000003000000000000000A", "0/2000100"), "latest", "")
    assert (found["type"], found["value"], found["exclusive"], found["timeline"]) == ("lsn", "0/A000000", True, 3)


def test_chance_stays_in_the_window_and_can_be_had_again() -> None:
    facts = stanza("00000001000000000000000A", "0/2000100", "0/5000100")
    values = [int(restore_point(facts, "random", str(n))["value"].split("/")[1], 16) for n in range(50)]
    assert all(0x2000100 <= value <= 0xA000000 for value in values)
    assert len(set(values)) > 40
    assert restore_point(facts, "random", "x") == restore_point(facts, "random", "x")


def test_without_wal_behind_a_backup_it_is_said_what_to_do() -> None:
    with pytest.raises(RecoveryError, match="pg_switch_wal"):
        restore_point(stanza("000000010000000000000002", "0/2000100"), "latest", "")
    with pytest.raises(RecoveryError, match="no backup"):
        restore_point(stanza("000000010000000000000002"), "latest", "")
