"""The confirmation where nobody types: ansible-runner, as AWX has it, with a pseudo-terminal or without, and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ansible_runner

# What an AWX survey sends for questions that nobody answered.
SURVEY = {"dr_tables": "", "dr_since": "", "dr_min_rows": "", "dr_max_lag": "", "dr_protect": "", "dr_contain": ""}
TARGET = {"type": "lsn", "value": "0/3008940", "exclusive": True, "timeline": 1}
# The words, the record and the question of every disaster-recovery playbook, without a database.
PLAY = {
    "hosts": "localhost",
    "gather_facts": False,
    "vars": {
        "incident_scenario": "table-drop",
        "incident_id": "{{ checked.options.dr_incident_id }}",
        "incident_confirm": "{{ checked.options.dr_confirm | default('', true) }}",
        "incident_confirm_timeout": "{{ checked.options.dr_confirm_timeout }}",
    },
    "tasks": [
        {"dbre.recovery.dr_options": {"playbook": "dr-table-drop"}, "register": "checked"},
        {"ansible.builtin.include_role": {"name": "dbre.recovery.incident", "tasks_from": "open"}},
        {
            "ansible.builtin.include_role": {"name": "dbre.recovery.incident", "tasks_from": "confirm"},
            "vars": {
                "incident_data": {"incident": {"kind": "drop_table", "xid": "{{ xid | default(7) }}"}, "target": TARGET}
            },
        },
        {
            "name": "Carry it out",
            "ansible.builtin.debug": {"msg": "carried out"},
            "when": "__incident_answer.confirmed",
        },
    ],
}


class Job:
    """One run of the play as a job runner starts it, on a pseudo-terminal."""

    def __init__(self, folder: Path, **given: Any) -> None:
        (folder / "play.json").write_text(json.dumps([PLAY]))
        run = ansible_runner.run(
            private_data_dir=tempfile.mkdtemp(dir=folder),
            playbook=str(folder / "play.json"),
            extravars={**SURVEY, "dr_database": "shop", "dr_report_dir": str(folder / "incidents"), **given},
            envvars={"ANSIBLE_HOME": str(folder)},
            quiet=True,
            timeout=120,
        )
        events = list(run.events)
        self.code, self.status = run.rc, run.status
        found = [event.get("event_data") or {} for event in events]
        self.said = " ".join(str((data.get("res") or {}).get("msg", "")) for data in found)
        self.output = "\n".join(event.get("stdout") or "" for event in events)
        self.handed_on = next((data["artifact_data"] for data in found if "artifact_data" in data), {})


def test_a_job_that_nobody_answers_ends_and_says_how_to_confirm(tmp_path: Path) -> None:
    job = Job(tmp_path, dr_confirm="", dr_confirm_timeout=2)
    assert (job.code, job.status) == (2, "failed")
    assert "Not confirmed: nobody answered within 2 s (dr_confirm_timeout)" in job.said
    assert "-e dr_confirm=plan-" in job.said


def test_a_job_without_a_terminal_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "play.json").write_text(json.dumps([PLAY]))
    given = {**SURVEY, "dr_database": "shop", "dr_report_dir": str(tmp_path / "incidents")}
    said, _errors, code = ansible_runner.run_command(
        "ansible-playbook",
        [str(tmp_path / "play.json"), "-e", json.dumps(given)],
        private_data_dir=tempfile.mkdtemp(dir=tmp_path),
        runner_mode="subprocess",
        quiet=True,
        timeout=120,
    )
    assert code == 2
    assert "Not confirmed: there is no terminal to ask on" in said


def test_one_job_plans_and_another_carries_out_that_plan_and_no_other(tmp_path: Path) -> None:
    planned = Job(tmp_path, dr_confirm="plan")
    assert (planned.code, planned.status) == (0, "successful")
    assert "carried out" not in planned.said
    assert f"-e dr_confirm={planned.handed_on['dr_confirm']}" in planned.output
    other = Job(tmp_path, xid=8, **planned.handed_on)
    assert (other.code, other.status) == (2, "failed")
    assert "is the digest of another plan" in other.said
    same = Job(tmp_path, **planned.handed_on)
    assert (same.code, same.status) == (0, "successful")
    assert "carried out" in same.said


def test_what_the_json_callback_prints_is_json(tmp_path: Path) -> None:
    (tmp_path / "play.json").write_text(json.dumps([PLAY]))
    given = {**SURVEY, "dr_database": "shop", "dr_report_dir": str(tmp_path / "incidents")}
    done = subprocess.run(
        ["ansible-playbook", str(tmp_path / "play.json"), "-e", json.dumps(given)],
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    tasks = [task["hosts"]["localhost"] for task in json.loads(done.stdout)["plays"][0]["tasks"]]
    (failed,) = [task["msg"] for task in tasks if task.get("failed")]
    assert "Not confirmed: a program reads this output" in failed
    assert "Plan of incident table-drop-" in done.stderr
