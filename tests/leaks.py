# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that nobody can guess, planted where one can stand, and searched for in all that a run says and leaves."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

SYSLOG = Path("/dev/log")


class Planted:
    """Secrets by the place where they were planted. Each begins and ends in a way that no escaping changes.

    Both ends begin with the same mark: data without it, which is nearly all, need not be searched for each of them.
    """

    def __init__(self) -> None:
        self._mark = secrets.token_hex(4)
        self._forms_of_mark = list(_forms(self._mark))
        self._forms: dict[str, list[bytes]] = {}

    def plant(self, place: str, between: str = "'\"%s\\$") -> str:
        """A new secret; what is ``between`` its ends is what quoting and masking may stumble over."""
        first, last = (self._mark + secrets.token_hex(6) for _end in range(2))
        self._forms[place] = [*_forms(first), *_forms(last)]
        return f"{first}{between}{last}"

    def found_in(self, data: bytes) -> list[str]:
        """Places whose secret, or a part of it, stands in ``data`` as it is, in base64 or in hexadecimal digits."""
        if not any(form in data for form in self._forms_of_mark):
            return []
        return [place for place, forms in self._forms.items() if any(form in data for form in forms)]


def _forms(core: str) -> Iterator[bytes]:
    raw = core.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):
        # Whole groups of three bytes only: the others depend on what stands beside.
        start = (3 - shift) % 3
        yield base64.b64encode(raw[start : start + (len(raw) - start) // 3 * 3])


def files_with(planted: Planted, roots: Iterable[Path], since: float = 0) -> dict[Path, list[str]]:
    """Files below ``roots``, changed ``since`` then, in which a secret stands, with the places it was planted in."""
    found = {}
    for root in roots:
        for path in [root, *root.rglob("*")]:
            # What others make and remove meanwhile is not looked for again.
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime >= since:
                    places = planted.found_in(path.read_bytes())
                    if places:
                        found[path] = places
    return found


def open_to_others(path: Path) -> bool:
    """Whether a file can be read by others than its owner and the group it was given to, or written by any of them."""
    try:
        return bool(path.stat().st_mode & 0o027)
    except FileNotFoundError:  # since it was found: WAL that the server needs no longer, say
        return False


class Watch:
    """What everybody here can see while something runs: command lines, and what comes to the system's log."""

    def __init__(self, planted: Planted) -> None:
        self._planted = planted
        self._stop = threading.Event()
        self.seen: list[str] = []
        self._threads = [threading.Thread(target=self._commands, daemon=True)]

    def __enter__(self) -> Watch:
        # Where nobody keeps a log, as on a machine without systemd, we do.
        if os.geteuid() == 0 and not _is_kept():
            self._threads.append(threading.Thread(target=self._log, args=(_listen(),), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _commands(self) -> None:
        while not self._stop.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
                    self._note("a command line", file.read())
            time.sleep(0.02)

    def _log(self, log: socket.socket) -> None:
        with log:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    self._note("the system's log", log.recv(1 << 20))
        SYSLOG.unlink(missing_ok=True)

    def _note(self, where: str, data: bytes) -> None:
        for place in self._planted.found_in(data):
            self.seen.append(f"{place} in {where}: {data.decode(errors='replace')}")


def _is_kept() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(str(SYSLOG)) == 0


def _listen() -> socket.socket:
    SYSLOG.unlink(missing_ok=True)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(SYSLOG))
    SYSLOG.chmod(0o666)
    log.settimeout(0.2)
    return log
