"""What tests tell the emulator beside the AWS API: regions lost, calls throttled, work that fails.

``POST /_emulator/...`` with a JSON body; answers JSON. ``GET /_emulator`` shows the present state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulator import Emulator

# Faults that hit the next piece of work of their kind: name -> what happens then.
NEXT = {
    "snapshot-failed": "the next snapshot that is created or copied ends in status failed",
    "incompatible-restore": "the next restore ends in status incompatible-restore",
    "failover-ignored": "the next reboot with failover, or failover of a cluster, changes nothing",
}


class UnknownControl(Exception):
    """No such control; the message says which there are."""


@dataclass
class Faults:
    lost: set[str] = field(default_factory=set)
    throttled: Counter[str] = field(default_factory=Counter)  # action, or "*" -> calls still to refuse
    _next: Counter[str] = field(default_factory=Counter)

    def throttles(self, action: str) -> bool:
        """Whether this call is refused with Throttling."""
        for name in (action, "*"):
            if self.throttled[name] > 0:
                self.throttled[name] -= 1
                return True
        return False

    def happens(self, name: str) -> bool:
        """Whether the fault was asked for; it happens once each time it was."""
        assert name in NEXT
        if self._next[name] > 0:
            self._next[name] -= 1
            return True
        return False

    def add(self, name: str, times: int) -> None:
        self._next[name] += times

    def describe(self) -> dict[str, Any]:
        return {
            "lost": sorted(self.lost),
            "throttled": {name: left for name, left in self.throttled.items() if left},
            "next": {name: left for name, left in self._next.items() if left},
        }


def control(emulator: Emulator, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One control request.

    - ``region/<region>/lost`` and ``region/<region>/restored``
    - ``throttle`` with ``{"action": "DescribeDBInstances" or "*", "times": 3}``
    - ``next/<fault>`` with ``{"times": 1}``, see NEXT
    - ``instance/<region>/<identifier>/storage-full``: until ModifyDBInstance gives it more storage
    """
    parts = path.strip("/").split("/")
    if parts[0] == "region" and len(parts) == 3 and parts[2] in ("lost", "restored"):
        (emulator.lose if parts[2] == "lost" else emulator.regain)(parts[1])
    elif parts == ["throttle"]:
        emulator.faults.throttled[str(body.get("action", "*"))] += int(body.get("times", 1))
    elif parts[0] == "next" and len(parts) == 2 and parts[1] in NEXT:
        emulator.faults.add(parts[1], int(body.get("times", 1)))
    elif parts[0] == "instance" and len(parts) == 4 and parts[3] == "storage-full":
        emulator.fill_storage(parts[1], parts[2])
    elif parts != [""]:
        raise UnknownControl(f"{path}: there is region/REGION/lost, region/REGION/restored, throttle, "
                             f"instance/REGION/IDENTIFIER/storage-full, next/{', next/'.join(NEXT)}")  # fmt: skip
    return emulator.faults.describe()
