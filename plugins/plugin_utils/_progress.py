# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextvars
import copy
import json
import threading
import time
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import printable
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.units import duration, number, size

FIRST_POLL = 5.0
SHORTEST_PAUSE = 3.0
LONGEST_PAUSE = 60.0


def pause_after(elapsed: float) -> float:
    """Seconds until the next look: 3 in the first minute, growing to 60; a long restore must not fill the screen."""
    return min(max(SHORTEST_PAUSE, elapsed / 20), LONGEST_PAUSE)


class Progress:
    """Turns what a module writes to its progress file into lines, and tells the time left from the lines before."""

    def __init__(self) -> None:
        self.shown = ""
        self.first: tuple[str, float, float] | None = None

    def line(self, text: str, now: float) -> str | None:
        """A line to print for file content ``text`` read at ``now`` (seconds); None when it says nothing new.

        ``text`` is one JSON object ``{"at", "what", "done", "total", "unit"}``; ``total`` is null when it is not known.
        """
        try:
            seen = json.loads(text)
            what, done, total = str(seen["what"]), float(seen["done"]), float(seen.get("total") or 0)
        except (ValueError, KeyError, TypeError):
            return None
        if text == self.shown:
            return None
        self.shown = text
        unit = str(seen.get("unit") or "")
        line = f"  {what}: {_amount(done, unit)}"
        if total > 0:
            whole = _amount(total, unit)
            same_unit = line.rpartition(" ")[2] == whole.rpartition(" ")[2]
            line = f"{line.rpartition(' ')[0] if same_unit else line} of {whole} ({min(100, int(100 * done / total))}%)"
        if self.first is None or self.first[0] != what or done < self.first[2]:
            self.first = (what, now, done)
        elif total > done > self.first[2] and now > self.first[1]:
            left = (total - done) * (now - self.first[1]) / (done - self.first[2])
            line += f", about {duration(max(1, round(left)))} left"
        return line


def _amount(value: float, unit: str) -> str:
    return size(value) if unit == "bytes" else f"{number(value)} {unit}".strip()


class ProgressAction(NormalAction):
    """Runs the module of the same name as always and meanwhile shows the progress it writes to a file on its host.

    A thread looks at the file through copies of the connection and of the become plugin: both keep the state of the
    command they run (prompt, success marker), so sharing them would disturb the module. Nothing is done in the first
    seconds, so a short step costs nothing more, and whatever fails while looking is left unsaid: progress is a comfort.
    """

    def progress_file(self) -> str | None:
        """Path on the host that the module runs on; None when this call has none."""
        path = self._task.args.get("path")
        return f"{str(path).rstrip('/')}/progress.json" if path else None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        path = self.progress_file()
        if path is None or self._task.check_mode or self._task.async_val:
            return dict(super().run(tmp, task_vars))
        looker = copy.copy(self)
        looker._connection = copy.copy(self._connection)
        looker._connection.become = copy.copy(self._connection.become)
        ended = threading.Event()
        # The thread gets this task's context variables, which ansible-core keeps the running task in.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(looker._show, path, ended), daemon=True)
        thread.start()
        try:
            return dict(super().run(tmp, task_vars))
        finally:
            ended.set()
            thread.join(timeout=1)

    def _show(self, path: str, ended: threading.Event) -> None:
        progress = Progress()
        start = time.monotonic()
        pause = FIRST_POLL
        file = self._connection._shell.quote(path)
        # Where others may write, one of theirs says nothing, and a FIFO is not waited for.
        command = f"test -f {file} && test -O {file} && cat {file}"
        while not ended.wait(pause):
            try:
                found = self._low_level_execute_command(command)
                line = progress.line(found["stdout"].strip(), time.monotonic()) if found["rc"] == 0 else None
                if line and not ended.is_set():
                    self._display.display(printable(line))
            except Exception as error:
                self._display.vvv(f"progress of {path} cannot be read: {error}")
            pause = pause_after(time.monotonic() - start)
