# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: runbook
type: stdout
short_description: Prints a run as a runbook, one line a phase
version_added: "0.1.0"
description:
  - Prints each phase of a recovery in one line, with its time (UTC), and in between what a person needs - the plan,
    what is asked, what went wrong, the verdict and where the report is. Of other playbooks it prints what was changed,
    one line a task, and the hosts at the end.
  - In a terminal the last line shows which step is running and how far it is. Without one nothing is overwritten, and
    the progress of long steps is printed in lines of its own.
  - An error is printed once, as its message. Names and messages reach a terminal without what it would act on, and
    with what looks like a password masked.
  - With C(-v) and more, tasks, results and paths are printed as by P(ansible.builtin.default#callback), with the phases
    in between.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration (C(stdout_callback=dbre.recovery.runbook), E(ANSIBLE_STDOUT_CALLBACK))
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

import functools
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.utils.fqcn import add_internal_fqcns
from ansible_collections.dbre.recovery.plugins.plugin_utils._screen import (
    OVERWRITTEN,
    SCREEN,
    failure_text,
    harmless,
    told,
)

INCIDENT = "dbre.recovery.incident"
_NOT_SHOWN = add_internal_fqcns(("pause", "validate_argument_spec"))
_INDENT = " " * 10


def _parts(result: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Host, task and result of what Ansible hands over; before ansible-core 2.19 their names were private."""
    if hasattr(result, "result"):
        return result.host, result.task, result.result
    return result._host, result._task, result._result


def _unless_verbose(method: Callable[..., None]) -> Callable[..., None]:
    """With -v, what the default callback prints instead."""

    @functools.wraps(method)
    def chosen(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        if self._display.verbosity:
            getattr(DefaultCallback, method.__name__)(self, *args, **kwargs)
        else:
            method(self, *args, **kwargs)

    return chosen


class CallbackModule(DefaultCallback):
    """Of what the default callback prints, what a person at three in the morning needs."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "dbre.recovery.runbook"

    def __init__(self) -> None:
        super().__init__()
        self._phase: str | None = None
        self._incident = False
        self._names: dict[str, str] = {}
        self._changed: dict[str, list[str]] = {}
        self._last_failure = ("", "")
        self._changed_anyway = False

    # What there is to print

    def _say(self, text: str, color: str | None = None, stderr: bool = False) -> None:
        self._display.display(text, color=color, stderr=stderr)

    def _line(self, what: str, text: str = "", color: str | None = None, stderr: bool = False) -> None:
        """``12:34:56  what  text``; further lines of the text stand below its first."""
        first, *more = text.split("\n")
        line = f"{datetime.now(timezone.utc):%H:%M:%S}  {what:<8}  {first}".rstrip()
        self._say("\n".join([line, *(f"{_INDENT}{part}".rstrip() for part in more)]), color, stderr)

    def _live(self, text: str) -> None:
        if SCREEN.live:
            self._display.display(
                f"{_INDENT}{' '.join(told(text).split())}{OVERWRITTEN}", screen_only=True, newline=False
            )

    def _name(self, task: Any) -> str:
        """The task's name with its variables filled in, which Ansible does for its start only, without its role's."""
        return told((self._names.get(task._uuid) or task.get_name()).rpartition(" : ")[2])

    def _told_changes(self) -> None:
        """Print what was changed since it was printed last."""
        for name, hosts in self._changed.items():
            self._line("changed", f"{name} ({', '.join(sorted(hosts))})", C.COLOR_CHANGED)
        self._changed.clear()

    def _fail(self, what: str, result: Any, ignored: bool = False) -> None:
        self._told_changes()
        _host, task, found = _parts(result)
        self._handle_warnings(found)
        reason = failure_text(found)
        where = f"{self._name(task)} ({told(self.host_label(result))})"
        if ignored:
            self._line("ignored", f"{where}: {reason.splitlines()[0]}", C.COLOR_SKIP)
            return
        # On each of many hosts the same may be wrong.
        again = self._last_failure == (task._uuid, reason)
        self._last_failure = (task._uuid, reason)
        self._line(
            what, where + ("" if again else f"\n{reason}"), C.COLOR_ERROR, self.get_option("display_failed_stderr")
        )

    def _note(self, result: Any) -> None:
        """Print the phase, when the record of the incident has a new one."""
        _host, task, found = _parts(result)
        record = found.get("record")
        if not isinstance(record, Mapping) or "phase" not in record or task.resolved_action != INCIDENT:
            return
        self._incident = True
        phase, self._phase = self._phase, record["phase"]
        if self._phase and self._phase != phase:
            self._line(told(self._phase), color=C.COLOR_OK)

    # What Ansible tells

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_start(playbook)
        else:
            SCREEN.begin()

    @_unless_verbose
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._told_changes()
        self._play = play
        if name := told(play.get_name()):
            self._line("play", name + (" (--check)" if play.check_mode else ""))

    @_unless_verbose
    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._line("skipped", "no host of the play's is there", C.COLOR_SKIP)

    @_unless_verbose
    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._told_changes()

    @_unless_verbose
    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._begin(task)

    @_unless_verbose
    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._begin(task)

    @_unless_verbose
    def v2_playbook_on_cleanup_task_start(self, task: Any) -> None:
        self._begin(task)

    def _begin(self, task: Any) -> None:
        self._told_changes()
        self._names[task._uuid] = task.get_name()
        # Where something is asked, nothing may come between; and a role's arguments are no step.
        if task.action not in _NOT_SHOWN:
            self._live(self._name(task))

    @_unless_verbose
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        pass

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result)
        if self._display.verbosity:
            super().v2_runner_on_ok(result)
        else:
            self._tell_ok(result)

    def _tell_ok(self, result: Any) -> None:
        _host, task, found = _parts(result)
        self._handle_warnings(found)
        if task.action in C._ACTION_DEBUG and not (task.loop and "results" in found):
            self._tell_debug(result)
        elif found.get("changed"):
            self._changed_anyway |= task.check_mode is False
            # A phase stands for all that is changed in it.
            if not self._incident:
                self._changed.setdefault(self._name(task), []).append(told(self.host_label(result)))

    def _tell_debug(self, result: Any, label: str = "") -> None:
        _host, task, found = _parts(result)
        self._clean_results(found, task.action)
        self._told_changes()
        text = told(found["msg"]) if "msg" in found else told(self._dump_results(found, indent=2))
        self._line("says", f"{told(self.host_label(result))}{label}: {text}")

    @_unless_verbose
    def v2_runner_item_on_ok(self, result: Any) -> None:
        _host, task, found = _parts(result)
        self._handle_warnings(found)
        if task.action in C._ACTION_DEBUG:
            self._tell_debug(result, f" ({told(self._get_item_label(found))})")

    @_unless_verbose
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        _host, task, found = _parts(result)
        if task.loop and "results" in found:
            self._handle_warnings(found)  # its items have said why
            return
        self._fail("FAILED", result, ignore_errors)

    @_unless_verbose
    def v2_runner_item_on_failed(self, result: Any) -> None:
        _host, task, found = _parts(result)
        self._fail("FAILED", result, task.ignore_errors is True)

    @_unless_verbose
    def v2_runner_on_unreachable(self, result: Any) -> None:
        _host, task, _found = _parts(result)
        self._fail("UNREACHABLE", result, task.ignore_unreachable is True)

    @_unless_verbose
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._handle_warnings(_parts(result)[2])

    @_unless_verbose
    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._handle_warnings(_parts(result)[2])

    @_unless_verbose
    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    @_unless_verbose
    def v2_on_file_diff(self, result: Any) -> None:
        _host, task, found = _parts(result)
        results = found["results"] if task.loop and "results" in found else [found]
        changed = [item["diff"] for item in results if item.get("changed") and item.get("diff")]
        texts = [text for diff in changed if (text := self._get_diff(harmless(diff)))]
        if texts:
            self._told_changes()
            self._line("differs", f"{self._name(task)} ({told(self.host_label(result))})")
        for text in texts:
            self._say(text)

    @_unless_verbose
    def v2_runner_retry(self, result: Any) -> None:
        _host, task, found = _parts(result)
        self._live(f"{self._name(task)}: tried {found.get('attempts')} of {found.get('retries')} times")

    @_unless_verbose
    def v2_runner_on_async_poll(self, result: Any) -> None:
        self._live(self._name(_parts(result)[1]))

    @_unless_verbose
    def v2_runner_on_async_ok(self, result: Any) -> None:
        pass

    @_unless_verbose
    def v2_runner_on_async_failed(self, result: Any) -> None:
        pass  # the task says it

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_stats(stats)
            return
        self._told_changes()
        SCREEN.end()
        ended = {host: stats.summarize(host) for host in sorted(stats.processed)}
        bad = any(counts["failures"] or counts["unreachable"] for counts in ended.values())
        if not self._incident:
            for host, counts in ended.items():
                self._line("ended", f"{told(host)}: {_counts(counts)}", _color(counts))
        if stats.custom and self.get_option("show_custom_stats"):
            for name, value in sorted(stats.custom.items()):
                self._line("stats", f"{'' if name == '_run' else told(name) + ': '}{told(self._dump_results(value))}")
        if context.CLIARGS.get("check") and not (bad or self._incident):
            self._line("checked", self._check_text())
        self._phase, self._incident = None, False

    def _check_text(self) -> str:
        done = "What is to run in check mode, too, has run" if self._changed_anyway else "Nothing was changed"
        return f"{done}. To do it, run the same command without --check"


def _counts(counts: Mapping[str, int]) -> str:
    """What happened on a host, in words; what did not is left out."""
    words = {"failures": "failed", "unreachable": "not reached"}
    shown = ("ok", "changed", "unreachable", "failures", "rescued", "ignored")
    return ", ".join(f"{counts[name]} {words.get(name, name)}" for name in shown if counts[name]) or "nothing to do"


def _color(counts: Mapping[str, int]) -> str:
    if counts["failures"] or counts["unreachable"]:
        return str(C.COLOR_ERROR)
    return str(C.COLOR_CHANGED if counts["changed"] else C.COLOR_OK)
