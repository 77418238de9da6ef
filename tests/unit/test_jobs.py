# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests run side by side, in an order in which none disturbs another."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Callable

import pytest
from ansible_collections.dbre.recovery.tests.tools.jobs import Job, run_jobs


class Recorder:
    """Notes when jobs begin and end."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def note(self, what: str, name: str) -> None:
        with self._lock:
            self.notes.append((what, name))

    def work(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.note("begins", name)
            time.sleep(0.05)
            self.note("ends", name)

        return run

    def job(self, name: str, **needs: Collection[str]) -> Job:
        return Job(name, self.work(name), **needs)

    def began(self) -> list[str]:
        return [name for what, name in self.notes if what == "begins"]

    def most_at_once(self, *names: str) -> int:
        running = most = 0
        for what, name in self.notes:
            if not names or name in names:
                running += 1 if what == "begins" else -1
                most = max(most, running)
        return most


def test_jobs_run_at_the_same_time_but_no_more_than_allowed() -> None:
    seen = Recorder()
    run_jobs([seen.job(name) for name in "abcdef"], at_once=3)
    assert sorted(seen.began()) == list("abcdef")
    assert seen.most_at_once() == 3


def test_jobs_that_use_the_same_host_run_one_after_the_other() -> None:
    seen = Recorder()
    hosts = {"a": {"deb12", "deb13"}, "b": {"deb13", "deb14"}, "c": {"deb11"}}
    run_jobs([seen.job(name, uses=used) for name, used in hosts.items()], at_once=3)
    assert seen.most_at_once("a", "b") == 1
    assert seen.most_at_once() == 2


def test_the_longest_begin_first_with_what_waits_for_them() -> None:
    seen = Recorder()
    seconds = {"short": 1, "long": 5, "first": 1, "longest": 6, "on a host": 4, "on the same": 4.5}
    needs = {"longest": {"after": {"first"}}, "on a host": {"uses": {"deb12"}}, "on the same": {"uses": {"deb12"}}}
    run_jobs([seen.job(name, **needs.get(name, {})) for name in seconds], 1, seconds)
    assert seen.began() == ["on the same", "on a host", "first", "longest", "long", "short"]


def test_a_job_whose_need_failed_is_left_out_and_the_others_still_run() -> None:
    seen = Recorder()

    def fail() -> None:
        raise OSError("no host starts")

    jobs = [Job("hosts", fail), seen.job("scenario", after={"hosts"}), seen.job("lint")]
    with pytest.raises(OSError, match="no host starts"):
        run_jobs(jobs, at_once=1)
    assert seen.began() == ["lint"]
