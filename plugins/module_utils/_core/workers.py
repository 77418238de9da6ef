# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# Seconds to wait for a connection that production has to spare.
PATIENCE = 60.0


class NoSession(RecoveryError):
    """Production has no connection to spare."""


class Workers:
    """Threads that share work. One that gets no session leaves its work to the others; the last one waits."""

    def __init__(self, work: Sequence[Callable[[], None]], parallel: int, patience: float) -> None:
        self._waiting = list(reversed(work))
        self._active = min(parallel, len(work))
        self._deadline = time.monotonic() + patience
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Do everything; the first error stops the taking of more and is raised."""
        threads = [threading.Thread(target=self._worker, daemon=True) for unused in range(self._active)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _take(self) -> Callable[[], None] | None:
        with self._lock:
            if self._waiting and not self._errors:
                return self._waiting.pop()
            self._active -= 1
            return None

    def _goes_on(self, item: Callable[[], None], error: NoSession) -> bool:
        """Give work back for which there was no session; whether this thread goes on with it later."""
        with self._lock:
            self._waiting.append(item)
            if self._active > 1:
                self._active -= 1
                return False
            if time.monotonic() > self._deadline:
                self._errors.append(error)
            return True

    def _worker(self) -> None:
        while True:
            item = self._take()
            if item is None:
                return
            try:
                item()
            except NoSession as error:
                if not self._goes_on(item, error):
                    return
                time.sleep(0.5)
            except BaseException as error:  # raised in the calling thread
                self._errors.append(error)


def run_parallel(work: Sequence[Callable[[], None]], parallel: int, patience: float = PATIENCE) -> None:
    """Do all of ``work`` in ``parallel`` threads, or in as many as production has connections for.

    The first error stops the taking of more and is raised; that there is no connection, after ``patience`` seconds.
    """
    Workers(work, parallel, patience).run()
