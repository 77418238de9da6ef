# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process on the controller that undoes a containment whose run has ended without doing so.

Ansible runs ``always`` neither after Ctrl-C nor after a kill. The process is a copy of the one that contains, so it has
what that has: connection, passwords, and the module.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible.utils.display import Display
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.contained import Note
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import process_start

POLL = 0.5
# Seconds after the end of the run: for how long it is tried, how often, and until when it is looked whether a module
# that was already on its way to the host has contained after all.
PATIENCE, PAUSE, AFTERMATH = 900.0, 5.0, 20.0
BY = "the process that waited for the end of the run"


def leave(note: Note, run: Mapping[str, Any], undo: Callable[[], dict[str, Any]]) -> None:
    """Start that process. ``undo`` returns what the module did; it is called once ``run`` has ended, until it works."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _detach()
            watch(note, run, undo)
    finally:
        # Nothing of the copied process may go on behind this line.
        os._exit(0)


def _detach() -> None:
    """Nothing that ends the run, its terminal or its job ends this, and nobody waits for its output."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 65536)
    # What this would say goes to the run's main process, by a pipe that nobody reads any more: a full one would hold it
    # up for ever.
    Display()._final_q = None


def watch(note: Note, run: Mapping[str, Any], undo: Callable[[], dict[str, Any]]) -> None:
    """Wait for the end of ``run``; then undo what it has left in force, unless another run has taken that over."""
    while process_start(int(run["pid"])) == run["start"]:
        if not note.held_by(run):
            return
        time.sleep(POLL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        # While a module of the run that ended still works, whoever waits for it has the guard.
        with note.guard():
            if not note.held_by(run):
                return
            result = _attempt(undo)
            if not result.get("failed"):
                done = {**(result.get("containment") or {}), "undone_at": _now(), "undone_by": BY}
                note.update(**{**done, "active": False, "undo_failed": None})
                break
            note.update(undo_failed=mask_text(str(result.get("msg")))[:2000])
        time.sleep(PAUSE)
    else:
        return
    end = time.monotonic() + AFTERMATH
    while time.monotonic() < end:
        time.sleep(PAUSE)
        with note.guard():
            if note.read().get("run") != dict(run):
                return
            _attempt(undo)


def _attempt(undo: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return undo()
    except Exception as error:
        return {"failed": True, "msg": str(error)}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
