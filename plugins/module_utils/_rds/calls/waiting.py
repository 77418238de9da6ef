# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until AWS has done what it was asked to, with a timeout that works and progress people can see.

botocore's own waiters stop after a fixed number of looks, take a status that a restore passes through for its end, and
find a renamed instance under a name that is no longer its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress

# Seconds between two looks. AWS needs minutes for nearly everything, and throttles who asks too often.
SHORTEST_PAUSE = 2.0
LONGEST_PAUSE = 15.0


@dataclass(frozen=True)
class Status:
    """What one look at the world showed: the status in AWS's words, whether that is the end, per cent if known."""

    status: str
    done: bool
    percent: Optional[int] = None
    found: Any = None


@dataclass
class Waiting:
    """How to wait: ``timeout`` in seconds for each wait, and where progress goes."""

    timeout: float
    progress: Progress = field(default_factory=lambda: Progress(None))
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def until(self, what: str, look: Callable[[], Status], safe: str, accepted: bool = True) -> Any:
        """Look until it is done; what was found then.

        ``what`` names the work ("restore of shop-dr"), ``safe`` says what is still safe when it takes too long.
        ``accepted`` is false while AWS has not yet taken the work, so that it does not go on by itself.
        Raises RecoveryError on timeout, and whatever ``look`` raises (a status that leads nowhere).
        """
        began = self.clock()
        while True:
            seen = look()
            if seen.done:
                return seen.found
            spent = self.clock() - began
            if spent >= self.timeout:
                raise RecoveryError(
                    f"{what} was not done after {self.timeout:.0f} s; its status is '{seen.status}'. "
                    f"{'AWS goes on with it. ' if accepted else ''}{safe} Run the same again: it goes on waiting where "
                    "this stopped (wait_timeout is how long).",
                    status=seen.status,
                )
            if seen.percent is not None:
                self.progress.say(f"{what}: {seen.status}", seen.percent, 100, "%")
            else:
                self.progress.say(f"{what}: {seen.status}", int(spent), 0, "s")
            self.sleep(min(max(SHORTEST_PAUSE, spent / 20), LONGEST_PAUSE, max(self.timeout - spent, 0.0)))
