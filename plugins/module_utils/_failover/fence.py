# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shut the old primary off for good: its unit masked, so that nothing starts it, and no process left."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import find_place
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid

_POLL = 0.1
# A server that does not end within these seconds gets the next signal.
_QUIT_PATIENCE = 5.0


def ensure_fenced(
    port: int, *, data: Optional[str], service: Optional[str], timeout: float, abrupt: bool, check_mode: bool
) -> dict[str, Any]:
    """Mask the unit and end the server; the module's result. Run as root.

    First a fast shutdown, which lets standbys have what is left, for ``timeout`` seconds; then harder ones.
    ``abrupt`` leaves that out, since it would archive a last segment (xlog.c: ShutdownXLOG), beside what another
    primary archives by now; and a server that stands by already takes no writes, and stays.
    RecoveryError where a process is left all the same.
    """
    place = find_place(port, data, service)
    if abrupt and os.path.exists(os.path.join(place.data, "standby.signal")):
        return {"changed": False, "service": place.service, "was_running": False}
    masked = is_masked(place.service)
    pid = pid_of_server(place.data)
    changed = not masked or pid is not None
    if changed and not check_mode:
        if not masked:
            _mask(place.service)
        if pid is not None:
            _end(place.data, place.service, None if abrupt else timeout)
    return {"changed": changed, "service": place.service, "was_running": pid is not None}


def pid_of_server(data: str) -> Optional[int]:
    """Process of the server on a data directory; None when there is none.

    Looked at as the owner: in a container root may not see where a process of others works, and would take it for none.
    """
    if os.geteuid() != 0:
        return server_pid(data)
    owner, group = os.stat(data), os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        return server_pid(data)
    finally:
        os.seteuid(0)
        os.setegid(group)


def is_masked(service: str) -> bool:
    """Whether systemd refuses to start the unit."""
    return run(["systemctl", "is-enabled", service])[1].strip().startswith("masked")


def _mask(service: str) -> None:
    rc, stdout, stderr = run(["systemctl", "mask", service])
    if rc != 0 or not is_masked(service):
        raise RecoveryError(
            f"{service} on {socket.gethostname()} cannot be masked: {(stderr or stdout).strip()}. No standby was "
            "touched. Switch the machine off, and run this again with -e dr_fenced=yes."
        )


def _end(data: str, service: str, timeout: Optional[float]) -> None:
    """End the server on a data directory, the more forcibly the longer it takes; at once without a ``timeout``."""
    gently = [] if timeout is None else [(signal.SIGINT, timeout)]
    for number, patience in (*gently, (signal.SIGQUIT, _QUIT_PATIENCE), (signal.SIGKILL, 0.0)):
        if (pid := pid_of_server(data)) is None:
            break
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if _ended(lambda: pid_of_server(data) is None, patience):
            break
    run(["systemctl", "stop", service])
    run(["systemctl", "kill", "--signal=SIGKILL", service])
    if not _ended(lambda: pid_of_server(data) is None, _QUIT_PATIENCE):
        raise RecoveryError(
            f"the server in {data} on {socket.gethostname()} does not end, not even by SIGKILL: its disk may hang. No "
            "standby was touched. Switch the machine off, and run this again with -e dr_fenced=yes."
        )


def _ended(over: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not over():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
