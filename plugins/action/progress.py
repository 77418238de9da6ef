# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextvars
import copy
import threading
import time
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import printable
from ansible_collections.dbre.recovery.plugins.plugin_utils._progress import (
    FIRST_POLL,
    Progress,
    pause_after,
    progress_file,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._screen import OVERWRITTEN, SCREEN
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import is_parsed


class ActionModule(NormalAction):
    """Runs the module of the task as always and meanwhile shows the progress it writes to a file on its host.

    A thread looks at the file through copies of the connection and of the become plugin: both keep the state of the
    command they run (prompt, success marker), so sharing them would disturb the module. Nothing is done in the first
    seconds, so a short step costs nothing more, and whatever fails while looking is left unsaid: progress is a comfort.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        module = str(self._task.action).rpartition(".")[2]
        path = progress_file(module, self._task.args)
        if path and module.startswith("rds_"):
            self._task.args = {**self._task.args, "progress_file": path}
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

    def _tell(self, line: str) -> None:
        """In place of the line before where the screen has a live one, as that of the callback runbook."""
        if SCREEN.live:
            self._display.display(f"{line}{OVERWRITTEN}", screen_only=True, newline=False)
        self._display.display(line, log_only=SCREEN.live, stderr=is_parsed())

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
                    self._tell(printable(line))
            except Exception as error:
                self._display.vvv(f"progress of {path} cannot be read: {error}")
            pause = pause_after(time.monotonic() - start)
