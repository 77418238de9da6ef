# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what a restore test restored, and prove that nothing of it is left on the host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import existing_parent

ENDING = 10.0  # seconds that processes have to end


def free_bytes(path: str) -> int:
    """Bytes that this user may still write where ``path`` is, or is to be."""
    system = os.statvfs(existing_parent(path))
    return system.f_bavail * system.f_frsize


def listens(port: int) -> bool:
    """Whether anything lets clients in at a port of this host."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def processes_below(path: str) -> list[int]:
    """Processes that work in a directory below ``path``, or were started with it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            place = os.readlink(f"/proc/{pid}/cwd").replace(" (deleted)", "")
            if int(pid) != os.getpid() and (place == path or place.startswith(f"{path}/")):
                found.append(int(pid))
    return sorted(found)


@contextlib.contextmanager
def held(name: str) -> Iterator[bool]:
    """Hold a file of this name, which is removed in the end; whether nobody else holds it, or nothing can be there."""
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            while True:
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                fcntl.flock(stack.enter_context(os.fdopen(descriptor, "r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who held it before may have removed it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(name).st_ino == os.fstat(descriptor).st_ino:
                        stack.callback(os.unlink, name)
                        break
        except BlockingIOError:
            yield False
            return
        except OSError:  # what is wrong with the place, the restore says
            pass
        yield True


def clean_up(path: str, before: Optional[int] = None) -> dict[str, Any]:
    """Remove the side instance at ``path``; what proves that it is gone, with all that is not in ``left``.

    ``before`` are the bytes that were free before the test. Others write to the disk, too, so that what is free
    afterwards is told and not judged; the tree itself must be gone.
    """
    instance = SideInstance(path)
    marker = instance.read_marker() or {}
    port = marker.get("port")
    removed = ensure_state(instance, "absent")
    left = []
    if os.path.lexists(instance.path) and marker.get("made_path", True):
        left.append(f"{instance.path} is still there")
    deadline = time.monotonic() + ENDING
    while (processes := processes_below(instance.path)) and time.monotonic() < deadline:
        time.sleep(0.1)  # what was told to end may take a moment
    if processes:
        left.append(f"processes {', '.join(map(str, processes))} still work below {instance.path}")
    if port and listens(int(port)):
        left.append(f"something still listens on port {port}")
    repository = removed.get("repository") or {}
    if repository.get("unchanged") is False:
        left.append(f"the archive's timelines were {repository['before']} and are {repository['after']}")
    return {
        "path": instance.path,
        "port": port,
        "processes": processes,
        "disk": {"before": before, "after": free_bytes(path)},
        "repository": repository,
        "left": left,
    }
