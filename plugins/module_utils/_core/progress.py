# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a long step is, for whoever shows it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically


class Progress:
    """Keeps one JSON object ``{at, what, done, total, unit}`` in a file while work goes on; nothing without a path."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def say(self, what: str, done: float, total: float, unit: str) -> None:
        """How far it is now; ``done`` and ``total`` are counted in ``unit``. Readers never see half an object."""
        if self._path is None:
            return
        at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        text = json.dumps({"at": at, "what": what, "done": done, "total": total, "unit": unit})
        # What belongs to others and cannot be removed leaves progress unsaid. Progress is a comfort.
        with self._lock, suppress(OSError):
            write_atomically(self._path, text + "\n", mode=0o644, durable=False)

    @contextmanager
    def watching(self, what: str, look: Callable[[], int | None]) -> Iterator[None]:
        """Say every two seconds how many bytes ``look`` finds, as long as the work lasts; None says nothing."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(2):
                # Progress is a comfort: whatever fails while looking is left unsaid.
                with suppress(Exception):
                    found = look()
                    if found is not None:
                        self.say(what, found, 0, "bytes")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(OSError):
                self.end()

    def end(self) -> None:
        """Remove the file."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)
