# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screen of a run, from events as ansible-core sends them."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.utils.display import Display
from ansible_collections.dbre.recovery.plugins.callback.runbook import CallbackModule

_NUMBERS = itertools.count()
# As Ansible's loader sets them.
OPTIONS = {
    **dict.fromkeys(("display_ok_hosts", "display_skipped_hosts"), True),
    **dict.fromkeys(("display_failed_stderr", "show_custom_stats", "check_mode_markers"), False),
}


class Task(SimpleNamespace):
    """What a callback may ask a task."""

    def __init__(self, name: str, action: str = "ansible.builtin.command", **more: Any) -> None:
        super().__init__(name=name, action=action, resolved_action=action, _uuid=str(next(_NUMBERS)), **more)

    def __getattr__(self, name: str) -> Any:
        if name in ("loop", "delegate_to", "ignore_errors", "ignore_unreachable", "check_mode", "no_log"):
            return None
        raise AttributeError(name)

    def get_name(self) -> str:
        return str(self.name)


class Host(SimpleNamespace):
    def get_name(self) -> str:
        return str(self.name)


class Result:
    """A result under its names since ansible-core 2.19 and before."""

    def __init__(self, host: str, task: Task, **result: Any) -> None:
        self.host = self._host = Host(name=host)
        self.task = self._task = task
        self.result = self._result = result


class Stats(SimpleNamespace):
    def summarize(self, host: str) -> dict[str, int]:
        empty = dict.fromkeys(("ok", "changed", "unreachable", "failures", "rescued", "ignored", "skipped"), 0)
        return {**empty, **self.processed[host]}


class Screen:
    """Drives the callback; ``lines`` is what it printed so far, times left out."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.callback = CallbackModule()
        self.callback._plugin_options = OPTIONS
        self._capsys = capsys

    def begin(self, task: Task) -> Task:
        self.callback.v2_playbook_on_task_start(task, is_conditional=False)
        return task

    def run(self, task: Task, host: str = "db1", **result: Any) -> None:
        self.begin(task)
        self.callback.v2_runner_on_ok(Result(host, task, **result))

    def fail(self, task: Task, host: str = "db1", ignore_errors: bool = False, **result: Any) -> None:
        self.begin(task)
        self.callback.v2_runner_on_failed(Result(host, task, **result), ignore_errors=ignore_errors)

    def end(self, **hosts: dict[str, int]) -> None:
        self.callback.v2_playbook_on_stats(Stats(processed=hosts, custom={}))

    @property
    def lines(self) -> list[str]:
        printed = self._capsys.readouterr().out.splitlines()
        return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line).rstrip() for line in printed]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(Display(), "verbosity", 0)
    return Screen(capsys)


def incident(phase: str | None, **record: Any) -> dict[str, Any]:
    return {"changed": True, "record": {"phase": phase, "outcome": "running", **record}}


BEGIN = "Begin the phase"


def test_a_phase_is_one_line_whatever_is_done_in_it(screen: Screen) -> None:
    screen.run(Task("Open the incident", "dbre.recovery.incident"), **incident(None))
    screen.run(Task(BEGIN, "dbre.recovery.incident"), **incident("locate"))
    screen.run(Task("Carry out the phase", "ansible.builtin.include_tasks"))
    screen.run(Task("Switch to the next segment"), changed=True)
    screen.run(Task(BEGIN, "dbre.recovery.incident"), **incident("restore"))
    screen.run(Task(BEGIN, "dbre.recovery.incident"), **incident("restore"))
    screen.end(db1={"ok": 6, "changed": 4})
    assert screen.lines == ["locate", "restore"]


def test_a_record_of_another_module_is_no_phase(screen: Screen) -> None:
    screen.run(Task("Ask DNS", "community.dns.lookup"), record={"phase": "restore"})
    assert screen.lines == []


def test_of_another_playbook_it_prints_what_was_changed_and_where_it_ended(screen: Screen) -> None:
    screen.callback.v2_playbook_on_play_start(SimpleNamespace(get_name=lambda: "Configure", check_mode=False))
    task = Task("pgbackrest : Install it")
    for host in ("db1", "db2", "db3"):
        screen.begin(task) if host == "db1" else None
        screen.callback.v2_runner_on_ok(Result(host, task, changed=host != "db3"))
    screen.callback.v2_runner_on_skipped(Result("db1", screen.begin(Task("Not here")), skipped=True))
    screen.end(db1={"ok": 3, "changed": 1}, db2={"ok": 2, "failures": 1}, db3={})
    assert screen.lines == [
        "play      Configure",
        "changed   Install it (db1, db2)",
        "ended     db1: 3 ok, 1 changed",
        "ended     db2: 2 ok, 1 failed",
        "ended     db3: nothing to do",
    ]


def test_an_error_stands_once_and_its_details_with_v_only(screen: Screen) -> None:
    task = Task("Find the transaction")
    screen.fail(task, msg="public.linse does not exist.\nNothing was changed.", candidates=[{"xid": 777}] * 50)
    screen.callback.v2_runner_on_failed(
        Result("db2", task, msg="public.linse does not exist.\nNothing was changed.", candidates=[])
    )
    assert screen.lines == [
        "FAILED    Find the transaction (db1)",
        "          public.linse does not exist.",
        "          Nothing was changed.",
        "FAILED    Find the transaction (db2)",
    ]


def test_a_program_that_failed_is_shown_with_its_last_words(screen: Screen) -> None:
    said = "\n".join(f"line {number}" for number in range(40))
    screen.fail(Task("Run it"), msg="non-zero return code", rc=1, stderr=said, stdout="")
    lines = screen.lines
    assert lines[1:3] == ["          non-zero return code", "          line 30"]
    assert lines[-1] == "          line 39"


def test_an_item_that_failed_says_why_and_the_loop_does_not_say_it_again(screen: Screen) -> None:
    task = screen.begin(Task("Make users", loop=["a", "b"]))
    screen.callback.v2_runner_item_on_ok(Result("db1", task, item="a", changed=True))
    screen.callback.v2_runner_item_on_failed(Result("db1", task, item="b", msg="no such user"))
    screen.callback.v2_runner_on_failed(Result("db1", task, msg="One or more items failed", results=[{}, {}]))
    assert screen.lines == ["FAILED    Make users (db1)", "          no such user"]


def test_what_is_ignored_and_what_cannot_be_reached_is_told(screen: Screen) -> None:
    screen.fail(Task("Try it"), ignore_errors=True, msg="not today\nnor tomorrow")
    screen.callback.v2_runner_on_unreachable(Result("db2", screen.begin(Task("Look")), msg="timed out"))
    assert screen.lines == ["ignored   Try it (db1): not today", "UNREACHABLE  Look (db2)", "          timed out"]


def test_names_bring_no_escape_sequence_and_no_secret_to_the_terminal(screen: Screen) -> None:
    screen.run(Task("Make \x1b[2Jorders"), changed=True)
    screen.fail(Task("Connect"), msg="role \x1b]0;owned\x07 refused: password=hunter2 at postgres://a:s3cret@h/db")
    screen.fail(
        Task("Hide it"), censored="the output has been hidden due to the fact that 'no_log: true' was specified"
    )
    text = "\n".join(screen.lines)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[2Jorders" in text
    assert "hunter2" not in text
    assert "s3cret" not in text
    assert "the output has been hidden" in text


def test_what_a_playbook_says_is_printed(screen: Screen) -> None:
    screen.run(Task("Say", "ansible.builtin.debug"), msg=["one", "two"], _ansible_verbose_always=True)
    screen.run(Task("Show", "debug"), rows={"orders": 3}, _ansible_verbose_always=True)
    lines = screen.lines
    assert lines[:2] == ["says      db1: one", "          two"]
    assert '"orders": 3' in "".join(lines)


def test_a_difference_is_shown_below_what_would_change(screen: Screen) -> None:
    result = Result("db1", screen.begin(Task("Configure")), changed=True, diff={"before": "a\n", "after": "b\x1b[0m\n"})
    screen.callback.v2_on_file_diff(result)
    lines = screen.lines
    assert lines[0] == "differs   Configure (db1)"
    assert "-a" in "\n".join(lines)
    assert "+b\\x1b[0m" in "\n".join(lines)


def test_with_v_the_default_callback_prints_and_the_phases_stand_between(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Display(), "verbosity", 1)
    screen.callback._play = SimpleNamespace(strategy="linear")
    screen.run(Task(BEGIN, "dbre.recovery.incident"), **incident("restore"))
    lines = screen.lines
    assert any(line.startswith(f"TASK [{BEGIN}]") for line in lines)
    assert "restore" in lines
    assert any(line.startswith('changed: [db1] => {"changed": true') for line in lines)
