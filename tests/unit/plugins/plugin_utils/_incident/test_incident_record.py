# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.history import (
    past_seconds,
    past_strategies,
    recovered_before,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.kept import overdue
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import process_start
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.record import IncidentRecord, check_id
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import finished_text

PARAMETERS = {"database": "shop", "tables": ["public.orders"]}

# Another run of a playbook: opens the incident in argv[1] and goes through phases with data until it is killed.
OTHER_RUN = """
import itertools, os, sys
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import process_start
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.record import IncidentRecord
me = {"host": sys.argv[2], "pid": os.getpid(), "start": process_start(os.getpid())}
def record():
    return IncidentRecord(sys.argv[1], "one", scenario="table-drop", run=lambda: me,
                          parameters={"database": "shop", "tables": ["public.orders"]})
record().open()
print("open", flush=True)
for number in itertools.count():
    record().phase(f"phase{number % 3}", {"number": number, "filler": {"text": "x" * 20000, "number": number}})
    record().planned({"target": {"value": number}})
"""


class Clock:
    """A clock that moves one second at each look."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> str:
        self.seconds += 1
        return f"2026-11-23T21:{self.seconds // 60:02}:{self.seconds % 60:02}.000+00:00"


def a_run(number: int = 1, host: str = "control1") -> dict[str, Any]:
    """Identity of a run; number 1 lives (it is this process), all others do not."""
    return {"host": host, "pid": os.getpid(), "start": process_start(os.getpid()) if number == 1 else f"gone {number}"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(host: str = "control1") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OTHER_RUN, str(tmp_path), host]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def record(directory: Path, clock: Clock, number: int = 1, **options: Any) -> IncidentRecord:
    options = {"scenario": "table-drop", "parameters": PARAMETERS, "host": "db1", **options}
    return IncidentRecord(str(directory), "one", now=clock, run=lambda: a_run(number), **options)


def events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "one" / "events.jsonl").read_text().splitlines()]


def test_phases_follow_each_other_with_their_seconds(tmp_path: Path, clock: Clock) -> None:
    opened, changed = record(tmp_path, clock).open()
    assert (opened["resumed"], opened["closed"], opened["plan"], changed) == (False, False, None, True)
    record(tmp_path, clock).phase("locate", {"target": {"value": "0/1"}})
    record(tmp_path, clock).phase("restore", {"target": {"timeline": 1}})
    done, _changed = record(tmp_path, clock).end("done", {}, None, None)
    assert [(event["phase"], event["host"], event["outcome"]) for event in events(tmp_path)] == [
        ("locate", "db1", "ok"),
        ("restore", "db1", "ok"),
    ]
    assert done["seconds"].keys() == {"locate", "restore"}
    assert done["finished_phases"] == ["locate", "restore"]
    assert done["data"]["target"] == {"value": "0/1", "timeline": 1}
    assert done["closed"]


def test_beginning_the_running_phase_again_only_adds_data(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    record(tmp_path, clock).phase("locate", {})
    again, _changed = record(tmp_path, clock).phase("locate", {"kind": "drop_table"})
    assert (len(events(tmp_path)), again["phase"], again["data"]) == (1, "locate", {"kind": "drop_table"})


def test_a_phase_says_where_it_will_have_found_what_belongs_into_the_record(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    begun, _changed = record(tmp_path, clock).phase("restore", {}, {"proof": "recovery_source_proof"})
    again, _changed = record(tmp_path, clock).phase("restore", {"more": 1})
    assert begun["keep"] == again["keep"] == {"proof": "recovery_source_proof"}
    after, _changed = record(tmp_path, clock).phase("prove", {"proof": {"archive_mode": "off"}})
    assert after["keep"] == {}
    record(tmp_path, clock).phase("recover", {}, {"recovery": "postgresql_table_recovery_result"})
    resumed, _changed = record(tmp_path, clock).open()
    assert resumed["keep"] == {}, "what a run that was killed may have found is not known to the next"


def test_a_run_that_goes_on_leaves_out_what_lies_before_the_last_milestone(tmp_path: Path, clock: Clock) -> None:
    options = {"milestones": ["prove", "verify"]}
    opened, _changed = record(tmp_path, clock, **options).open()
    assert opened["done_phases"] == []
    for phase in ("plan", "contain", "restore", "prove"):
        assert record(tmp_path, clock).phase(phase, {})[0]["done_phases"] == []
    before = ["contain", "locate", "restore", "prove"]
    assert record(tmp_path, clock).phase("recover", {})[0]["done_phases"] == before
    again, _changed = record(tmp_path, clock, **options).open()
    assert again["done_phases"] == before, "recover was cut off, and what comes before it is past"
    left_alone, changed = record(tmp_path, clock).phase("prove", {})
    assert (left_alone["phase"], left_alone["finished_phases"], changed) == (None, again["finished_phases"], False)
    ended, _changed = record(tmp_path, clock).end("done", {}, None, None)
    assert "plan" in ended["done_phases"], "all of an incident that has ended"


CONFIRMED = {"confirmation": {"how": "typed yes"}}


def test_a_plan_that_was_confirmed_stays(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock, 2).open()
    first, _changed = record(tmp_path, clock, 2).planned({"target": {"value": "0/1"}})
    record(tmp_path, clock, 2).phase("confirm", CONFIRMED)
    second, changed = record(tmp_path, clock).open()
    assert second["plan"] == first["plan"]
    third, changed = record(tmp_path, clock).planned({"target": {"value": "0/1"}, "wal": 2})
    assert (third["plan"], "wal" in third["data"], changed) == (first["plan"], False, False)


def test_a_plan_that_nobody_confirmed_is_made_anew(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock, 2).open()
    record(tmp_path, clock, 2).planned({"target": {"value": "0/1", "xid": 7}})
    record(tmp_path, clock, 2).end("failed", {}, "Not confirmed", None)
    assert record(tmp_path, clock, check_mode=True).open()[0]["plan"] is None
    assert record(tmp_path, clock).open()[0]["plan"] is None
    anew, _changed = record(tmp_path, clock).planned({"target": {"value": "0/2"}})
    assert (anew["plan"]["target"], anew["data"]["target"]) == ({"value": "0/2"}, {"value": "0/2"})


def test_a_plan_that_is_older_than_the_world_is_made_anew_and_has_to_be_confirmed_again(
    tmp_path: Path, clock: Clock
) -> None:
    record(tmp_path, clock, 2).open()
    record(tmp_path, clock, 2).planned({"target": {"value": "0/1"}})
    record(tmp_path, clock, 2).phase("restore", CONFIRMED)
    record(tmp_path, clock).open()
    anew, _changed = record(tmp_path, clock).planned({"target": {"value": "0/9"}})
    assert anew["plan"]["target"] == {"value": "0/9"}
    assert anew["plan"]["instead_of"]["target"] == {"value": "0/1"}
    assert "confirmation" not in anew["data"]


def test_a_killed_run_is_taken_up_and_its_phase_is_interrupted(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock, 2).open()
    record(tmp_path, clock, 2).phase("locate", {})
    record(tmp_path, clock, 2).phase("restore", {})
    resumed, _changed = record(tmp_path, clock).open()
    assert (resumed["resumed"], resumed["finished_phases"], resumed["phase"]) == (True, ["locate"], None)
    record(tmp_path, clock).phase("restore", {})
    done, _changed = record(tmp_path, clock).end("done", {"recovery": {"relations": []}}, None, None)
    assert [event["outcome"] for event in events(tmp_path)] == ["ok", "interrupted", "ok"]
    assert done["finished_phases"] == ["locate", "restore"]
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    assert [run["outcome"] for run in report["run_history"]] == ["interrupted", "done"]
    assert report["rto"]["seconds"] > sum(done["seconds"].values())


def test_a_failed_run_says_where_and_can_be_taken_up(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    record(tmp_path, clock).phase("restore", {})
    failed, _changed = record(tmp_path, clock).end("failed", {}, "disk is full, password=geheim", "Restore it")
    assert (failed["closed"], failed["outcome"], failed["finished_phases"]) == (False, "failed", [])
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    assert report["message"] == "disk is full, password=********"
    assert report["failed_at"] == {"phase": "restore", "step": "Restore it", "host": "db1"}
    assert record(tmp_path, clock).open()[0]["resumed"]


def test_an_incident_that_is_done_stays_as_it_is(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    record(tmp_path, clock).end("done", {}, None, None)
    before = (tmp_path / "one" / "record.json").read_text()
    again, changed = record(tmp_path, clock).open()
    assert (again["closed"], changed) == (True, False)
    assert again["headline"] in finished_text({**again, "verdict": "proved"})
    assert again["headline"] not in finished_text({**again, "verdict": "in_part"}), "the run ends with it"
    assert "leave dr_incident_id out, or give another one" in finished_text(again)
    left_alone, changed = record(tmp_path, clock).phase("restore", {"target": {}})
    assert (left_alone["phase"], left_alone["data"], changed) == (None, {}, False)
    with pytest.raises(IncidentError, match="open it first"):
        record(tmp_path, clock).end("done", {}, None, None)
    assert (tmp_path / "one" / "record.json").read_text() == before


def test_other_parameters_are_refused_by_name_once_they_were_acted_upon(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    other = {"database": "crm", "tables": ["public.orders"]}
    with pytest.raises(IncidentError, match="scenario was table-drop, now drill"):
        record(tmp_path, clock, scenario="drill").open()
    record(tmp_path, clock).phase("restore", {})
    with pytest.raises(IncidentError, match='database was "shop", now "crm"'):
        record(tmp_path, clock, parameters=other).open()
    record(tmp_path, clock).phase("recover", {})
    with pytest.raises(IncidentError, match=r'tables was \["public.orders"\], now \["public.lines"\]'):
        record(tmp_path, clock, parameters={**PARAMETERS, "tables": ["public.lines"]}).open()


def test_a_misspelt_name_can_be_corrected_under_the_same_id_until_production_was_touched(
    tmp_path: Path, clock: Clock
) -> None:
    record(tmp_path, clock, 2).open()
    record(tmp_path, clock, 2).planned({"target": {"value": "0/1"}})
    record(tmp_path, clock, 2).phase("restore", CONFIRMED)
    record(tmp_path, clock, 2).end("failed", {}, "no table public.ordres", None)
    corrected = {**PARAMETERS, "tables": ["public.lines"]}
    opened, _changed = record(tmp_path, clock, parameters=corrected).open()
    assert (opened["plan"], opened["parameters"]) == (None, corrected)
    assert "confirmation" not in opened["data"], "the plan is another one now"


def test_without_open_nothing_is_recorded(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(IncidentError, match="there is no incident one"):
        record(tmp_path, clock).phase("locate", {})
    record(tmp_path, clock, 2).open()
    with pytest.raises(IncidentError, match="open it first"):
        record(tmp_path, clock).phase("locate", {})


def test_two_runs_at_once_are_refused(tmp_path: Path, clock: Clock, other_run: Any) -> None:
    process = other_run()
    with pytest.raises(IncidentError, match=f"another run: process {process.pid} on control1"):
        record(tmp_path, clock).open()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert record(tmp_path, clock).open()[0]["resumed"]


def test_a_run_on_another_controller_is_not_guessed_dead(tmp_path: Path, clock: Clock, other_run: Any) -> None:
    process = other_run("control2")
    process.kill()
    process.wait()
    with pytest.raises(IncidentError, match="if it is gone, remove .*/one/lock"):
        record(tmp_path, clock).open()
    (tmp_path / "one" / "lock").unlink()
    assert record(tmp_path, clock).open()[0]["resumed"]


def test_a_process_id_that_was_given_to_another_process_frees_the_lock(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock, 2).open()
    assert json.loads((tmp_path / "one" / "lock").read_text())["pid"] == os.getpid()
    assert record(tmp_path, clock).open()[0]["resumed"]


def test_killed_at_any_moment_the_record_is_whole(tmp_path: Path, clock: Clock, other_run: Any) -> None:
    moments = random.Random(7)
    for _attempt in range(12):
        process = other_run()
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.wait()
        for path in (tmp_path / "one").rglob("*.json"):
            json.loads(path.read_text())
        resumed, _changed = record(tmp_path, clock).open()
        assert len(resumed["data"].get("filler", {"text": "x" * 20000})["text"]) == 20000
        record(tmp_path, clock).end("failed", {}, "handed on", None)
        assert all(event["end"] for event in events(tmp_path))
    assert list((tmp_path / "one").rglob(".*.tmp")) == []


def test_check_mode_writes_nothing(tmp_path: Path, clock: Clock) -> None:
    opened, changed = record(tmp_path, clock, check_mode=True).open()
    assert (opened["id"], opened["data"], opened["past_seconds"], changed) == ("one", {}, None, False)
    planned, changed = record(tmp_path, clock, check_mode=True).planned({"target": 1})
    assert (planned["plan"]["target"], planned["parameters"], changed) == (1, PARAMETERS, False)
    record(tmp_path, clock, check_mode=True).phase("locate", {"a": 1})
    record(tmp_path, clock, check_mode=True).end("done", {}, None, None)
    assert list(tmp_path.iterdir()) == []


def test_check_mode_leaves_an_open_incident_as_it_is(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock, 2).open()
    record(tmp_path, clock, 2).phase("restore", {"target": 1})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert record(tmp_path, clock, check_mode=True).open()[0]["data"] == {"target": 1}
    record(tmp_path, clock, check_mode=True).end("failed", {"target": 2}, "no", None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nobody_else_can_read_the_record_and_no_secret_is_in_it(tmp_path: Path, clock: Clock) -> None:
    secret = "geheim-4711"
    data = {
        "instance": {"host": "db2", "password": secret, "login_password": secret, "user": "dbre"},
        "settings": [{"repo1-cipher-pass": secret}, f"postgres://dbre:{secret}@db2/shop", f"PGPASSWORD={secret} psql"],
        "api_token": {"deep": [secret]},
    }
    record(tmp_path, clock, parameters={"password": secret}).open()
    record(tmp_path, clock).phase("restore", data)
    record(tmp_path, clock).planned({})
    returned, _changed = record(tmp_path, clock).end("failed", {}, f"could not log in with password='{secret}'", None)
    assert returned["data"]["instance"] == {
        "host": "db2",
        "password": "********",
        "login_password": "********",
        "user": "dbre",
    }
    for path in (tmp_path / "one").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert path.is_dir() or secret not in path.read_text()


def test_past_runs_tell_of_each_way_back_how_long_it_takes(tmp_path: Path, clock: Clock) -> None:
    for number, (strategy, spent) in enumerate([("rows", 4.0), ("database", 40.0), ("database", 60.0)]):
        folder = tmp_path / f"old{number}"
        folder.mkdir()
        report = {"scenario": "corruption", "outcome": "done", "runs": 1, "ended": f"2026-11-0{number + 1}"}
        seconds = {"restore": spent / 4, "prove": 1.0, "recover": spent, "report": 900.0}
        more = {"parameters": {"strategy": strategy}, "seconds": seconds, "came_back": {"bytes": 1000.0}}
        (folder / "report.json").write_text(json.dumps({**report, **more}))
    found = past_strategies(tmp_path, "corruption", "one")
    assert found["rows"] == {"restore": 1.0, "seconds": 5.0, "bytes_per_second": 200.0}
    assert (found["database"]["restore"], found["database"]["seconds"]) == (12.5, 51.0)
    assert past_seconds(tmp_path, "corruption", "one", "rows") == {**seconds, "restore": 1.0, "recover": 4.0}
    assert past_strategies(tmp_path, "table-drop", "one") == {}


def test_past_runs_tell_how_long_phases_take(tmp_path: Path, clock: Clock) -> None:
    for number, (outcome, runs, spent) in enumerate(
        [("done", 1, 4.0), ("done", 1, 8.0), ("done", 1, 5.0), ("failed", 1, 100.0), ("done", 2, 200.0)]
    ):
        folder = tmp_path / f"old{number}"
        folder.mkdir()
        report = {"scenario": "table-drop", "outcome": outcome, "runs": runs, "ended": f"2026-11-0{number + 1}"}
        (folder / "report.json").write_text(json.dumps({**report, "seconds": {"restore": spent}}))
    (tmp_path / "old0" / "report.html").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    assert record(tmp_path, clock).open()[0]["past_seconds"] == {"restore": 5.0}
    assert record(tmp_path / "elsewhere", clock).open()[0]["past_seconds"] is None


def test_a_damage_that_another_incident_has_recovered_from_is_told_with_that_incident(tmp_path: Path) -> None:
    damage = {"lsn": "0/3008940", "xid": 741}
    for name, verdict, incident in (
        ("a1", "not_recovered", damage),
        ("a2", "proved", damage),
        ("a3", "proved", {"lsn": "0/4000000", "xid": 900}),
        ("a4", "proved", None),
    ):
        (tmp_path / name).mkdir()
        report = {"id": name, "verdict": verdict, "headline": "Recovered and proved", "incident": incident}
        (tmp_path / name / "report.json").write_text(json.dumps({**report, "ended": f"2026-11-0{name[1]}"}))
    assert recovered_before(tmp_path, damage, "b1") == "a2: Recovered and proved"
    assert recovered_before(tmp_path, damage, "a2") is None
    assert recovered_before(tmp_path, {}, "b1") is None


def test_what_is_kept_for_too_long_is_named_by_others_until_it_is_removed(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    assert record(tmp_path, clock).phase("plan", {}, abandon="give one up")[0]["side"] is None
    made, _changed = record(tmp_path, clock).phase("restore", {}, abandon="give one up")
    assert made["side"] == {"expires": "2026-11-30T21:00:06.000+00:00", "removed": None, "abandon": "give one up"}
    proved, _changed = record(tmp_path, clock).phase("prove", {"instance": {"port": 1}})
    assert proved["data"]["instance"]["expires"] == made["side"]["expires"]
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "record.json").write_text('{"id": "another", "side": "of another program"}')
    assert overdue(tmp_path, "two", "2026-11-30T21:00:05.000+00:00") == []
    late = "2026-11-30T21:00:06.000+00:00"
    assert overdue(tmp_path, "one", late) == [], "a run does not tell what it makes itself"
    (kept,) = overdue(tmp_path, "two", late)
    assert (kept["incident"], kept["what"], kept["abandon"]) == ("one", "what was made for it", "give one up")
    for plan, what in (
        ({"restore_plan": {"path": "/side/one"}, "side_host": "db2"}, "side instance /side/one on db2"),
        ({"restore_plan": {"rds": {"target_identifier": "shop-dr-one"}}}, "side instance shop-dr-one"),
        ({"restore_plan": {}, "side_host": "db2"}, "standby db2, held back"),
    ):
        (tmp_path / "one" / "plan.json").write_text(json.dumps(plan))
        assert overdue(tmp_path, "two", late)[0]["what"] == what
    again, _changed = record(tmp_path, clock).open()
    again, _changed = record(tmp_path, clock).phase("restore", {}, abandon="give one up now")
    assert again["side"] == {**made["side"], "abandon": "give one up now"}, "no run makes it younger"
    switch = tmp_path / "one" / "evidence" / "switch.json"
    switch.write_text("{}")
    assert overdue(tmp_path, "two", late) == [], "it serves now"
    switch.unlink()
    done, _changed = record(tmp_path, clock).end("done", {"removed": True}, None, None)
    assert done["side"]["removed"] is not None
    assert overdue(tmp_path, "two", late) == []
    assert "removed" not in done["data"]


def test_what_another_controller_made_is_named_by_what_its_host_shows(tmp_path: Path) -> None:
    seen = {"incident": "theirs", "path": "/side/theirs", "created": "2026-11-23T21:00:00+00:00", "remove": "rm it"}
    plan = {"side_host": "db2", "restore_plan": {"beside": [seen, {**seen, "incident": "mine", "path": "/side/mine"}]}}
    assert overdue(tmp_path, "mine", "2026-11-30T20:59:59+00:00", plan) == []
    (kept,) = overdue(tmp_path, "mine", "2026-11-30T21:00:00+00:00", plan)
    assert kept["what"] == (
        "side instance /side/theirs on db2 (without a record here; the command is for a shell on db2)"
    )
    assert (kept["incident"], kept["abandon"]) == ("theirs", "rm it")
    assert kept["expires"] == "2026-11-30T21:00:00.000+00:00"
    on_rds = {"restore_plan": {"rds": {}, "beside": [{**seen, "path": "shop-dr-theirs"}]}}
    (kept,) = overdue(tmp_path, "mine", "2026-11-30T21:00:00+00:00", on_rds)
    assert kept["what"] == "side instance shop-dr-theirs (without a record here)"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "record.json").write_text("{}")
    assert overdue(tmp_path, "mine", "2026-12-30T21:00:00+00:00", plan) == [], "its record says when, and how"


def test_a_standby_is_held_before_there_is_a_plan_and_a_given_up_incident_begins_anew(
    tmp_path: Path, clock: Clock
) -> None:
    options = {"parameters": {**PARAMETERS, "source": "standby"}}
    record(tmp_path, clock, **options).open()
    assert record(tmp_path, clock, **options).phase("plan", {}, abandon="x")[0]["side"]["removed"] is None
    given_up, _changed = record(tmp_path, clock, **options).abandoned("It was given up.")
    assert (given_up["outcome"], given_up["side"]["removed"] is not None) == ("failed", True)
    record(tmp_path, clock, **options).open()
    assert record(tmp_path, clock, **options).phase("plan", {}, abandon="x")[0]["side"]["removed"] is None
    left = [{"what": "Remove it", "command": "x"}, {"what": "Look", "command": "y"}]
    record(tmp_path, clock, **options).end("done", {"left_to_do": left}, None, None)
    report = tmp_path / "one" / "report.json"
    assert len(json.loads(report.read_text())["left_to_do"]) == 2
    closed, _changed = record(tmp_path, clock, 2, **options).abandoned("It was given up.")
    assert (closed["outcome"], closed["closed"]) == ("done", True)
    assert [item["what"] for item in json.loads(report.read_text())["left_to_do"]] == ["Look"]
    late, _changed = IncidentRecord(str(tmp_path), "two", now=lambda: "2026-12-24T00:00:00+00:00").open()
    assert late["overdue"] == []


@pytest.mark.parametrize("name", ["", "a" * 41, "-a", "a b", "a/b", "..", "ü", "a\n", "a;b"])
def test_an_id_that_cannot_name_a_folder_and_a_schema_is_refused(name: str) -> None:
    with pytest.raises(IncidentError, match="1 to 40 letters"):
        check_id(name)


@pytest.mark.parametrize("name", ["a", "A-1_b", "_x", "2026-11-23T2142", "a" * 40])
def test_an_id_that_can_is_taken(name: str) -> None:
    assert check_id(name) == name


def test_a_data_key_that_is_no_file_name_is_refused(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    with pytest.raises(IncidentError, match="cannot name an evidence file"):
        record(tmp_path, clock).phase("locate", {"../../etc/passwd_file": 1})


def test_a_plan_of_a_source_that_shows_nothing_is_refused_before_it_is_kept(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    with pytest.raises(IncidentError, match="says nothing to show: shown is None"):
        record(tmp_path, clock).planned({"restore_plan": {"path": "/srv/side"}})
    assert not (tmp_path / "one" / "plan.json").exists()


def test_a_record_that_somebody_wrote_in_is_refused_by_its_file(tmp_path: Path, clock: Clock) -> None:
    record(tmp_path, clock).open()
    (tmp_path / "one" / "record.json").write_text('{"id": "one"}')
    with pytest.raises(IncidentError, match=r"record\.json is no record of an incident: it has no scenario"):
        record(tmp_path, clock).open()
