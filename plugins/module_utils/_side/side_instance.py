# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A side instance on this host: the files below its path, its marker, its progress, and its server process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import (
    read_own_file,
    require_own_place,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.recovery_log import (
    InvalidPages,
    RecoveryLog,
    read_invalid_pages,
    read_recovery_log,
    without_invalid_pages,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_checks import is_restored
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import (
    isolation_settings,
    render_hba,
    render_settings,
)

MADE_BY = "dbre.recovery"
MARKER = "marker.json"
# State of an instance that is to take the place of production, or has: no side instance any more.
TAKEN = "taken"
# What may lie in a directory that is still to become ours: a file system's own, and what precedes the first marker.
NOT_COUNTED = frozenset(["lost+found", "lock.file", f"{MARKER}.new"])
# Longest path of a Unix socket is 107 bytes on Linux.
LONGEST_PATH = 107 - len("/run/.s.PGSQL.65535")
# Seconds to wait for the step that a killed run left behind on the host.
LONGEST_WAIT = 3600.0
# Bytes of a log that are read at a time; ignored invalid pages may make gigabytes of it.
LOG_CHUNK = 16 * 1024 * 1024
# Seconds until a server that is being started has said so.
LONGEST_START = 60.0
_STILL_THERE = ("pre-existing shared memory", 'lock file "postmaster.pid" already exists')
_SAFE_PATH = re.compile(r"/[A-Za-z0-9._@+/-]+")


def now() -> str:
    """This moment, ISO-8601 in UTC."""
    return datetime.now(timezone.utc).isoformat()


def boot_id() -> str:
    """Identity of this boot of the kernel: an instance written without fsync lives no longer than it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def available_memory() -> int:
    """Bytes of memory that programs could take on this host now."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise RecoveryError(f"/proc/meminfo on {socket.gethostname()} does not say MemAvailable")


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def server_pid(data: str) -> Optional[int]:
    """Process of the server that runs on a data directory; None when there is none."""
    try:
        with open(os.path.join(data, "postmaster.pid"), encoding="utf-8") as file:
            pid = int(file.readline())
        # A stale file may name a process that is something else by now; the server works in its data directory.
        return pid if os.path.realpath(os.readlink(f"/proc/{pid}/cwd")) == os.path.realpath(data) else None
    except (FileNotFoundError, ProcessLookupError, ValueError, PermissionError):
        return None


def running_data_directories() -> set[str]:
    """Data directories of all PostgreSQL servers on this host whose processes may be looked at."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            if name in ("postgres", "postmaster"):
                place = os.path.realpath(os.readlink(f"/proc/{pid}/cwd"))
                # One that has just begun, or only says its version, is where it was called from, maybe in "/".
                if os.path.exists(os.path.join(place, "PG_VERSION")):
                    found.add(place)
    return found


class SideInstance:
    """The directory tree of one side instance. All it is lies below ``path``; nothing outside is ever written."""

    def __init__(self, path: str) -> None:
        if not _SAFE_PATH.fullmatch(path) or len(path) > LONGEST_PATH:
            raise RecoveryError(
                f"{path!r} cannot be the path of a side instance: it must be absolute, at most {LONGEST_PATH} bytes "
                "(its socket lies below it), of letters, digits and . _ @ + - only. Choose another path."
            )
        self.path = os.path.realpath(path)
        self.host = socket.gethostname()
        self.data = self.below("data")
        self.tablespaces = self.below("tablespaces")
        self.run_dir = self.below("run")
        self.log_file = self.below("log", "postgresql.log")
        self.backrest_config = self.below("pgbackrest.conf")

    def below(self, *parts: str) -> str:
        """Path of something of ours."""
        return os.path.join(self.path, *parts)

    def make_directories(self, *more: str) -> None:
        """Make the directories that the server needs, and ``more``."""
        for name in ("data", "tablespaces", "log", "run", *more):
            os.makedirs(self.below(name), mode=0o700, exist_ok=True)
            os.chmod(self.below(name), 0o700)

    # Marker, lock and progress

    def read_marker(self) -> Optional[dict[str, Any]]:
        """What was recorded of this instance; None when there is none here."""
        require_own_place(self.path, "dr_side_path")
        try:
            marker = json.loads(read_own_file(self.below(MARKER)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RecoveryError(f"{self.below(MARKER)} on {self.host} is no JSON ({error}): it is not ours.") from error
        if marker.get("made_by") != MADE_BY:
            raise RecoveryError(f"{self.below(MARKER)} on {self.host} is not ours. Choose another path.")
        return dict(marker)

    def marker(self) -> dict[str, Any]:
        """What was recorded; RecoveryError when there is no instance here."""
        marker = self.read_marker()
        if marker is None:
            raise RecoveryError(
                f"there is no side instance at {self.path} on {self.host}. Make it: pgbackrest_restore."
            )
        return marker

    def write_marker(self, marker: Mapping[str, Any]) -> None:
        write_atomically(self.below(MARKER), json.dumps({**marker, "made_by": MADE_BY}, indent=1) + "\n")

    @contextlib.contextmanager
    def locked(self, patience: float = LONGEST_WAIT) -> Iterator[None]:
        """Hold this instance, so that two runs do not work on it at once. The lock dies with the process.

        A playbook that is killed leaves the step that it had begun on this host behind, and that one works on. It is
        waited for, ``patience`` seconds at most, while its progress is shown as ours. What it has done is known from
        the marker, which must be read anew under the lock.
        """
        name = self.below("lock.file")
        deadline = time.monotonic() + patience
        with open(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.seek(0)
                        raise RecoveryError(
                            f"another run still works on the side instance {self.path} on {self.host}, after "
                            f"{patience:.0f} s: process {file.read().strip()} there. Production is not concerned. Look "
                            f"at what it waits for; end it (kill) when it is stuck, then run again."
                        ) from None
                time.sleep(0.2)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def progress(self, what: str, done: float, total: float, unit: str) -> None:
        """Say how far a long step is; who shows it reads the file."""
        Progress(self.below("progress.json")).say(what, done, total, unit)

    # The server process

    def environment(self) -> dict[str, str]:
        """Environment of what we start: nothing of the caller's locale or libpq and pgBackRest settings."""
        kept = {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR"}
        clean = {name: value for name, value in os.environ.items() if name in kept}
        # Secrets of a repository may be given by environment only; its paths are in our configuration file.
        clean.update({name: value for name, value in os.environ.items() if name.startswith("PGBACKREST_REPO")})
        return {**clean, "LC_ALL": "C", "TZ": "UTC"}

    def call(
        self, argv: list[str], timeout: float = 120, environment: Optional[Mapping[str, str]] = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs; ``environment`` goes before ours."""
        # A module's run_command would add to the caller's environment, and knows no time limit.
        return subprocess.run(  # pylint: disable=ansible-bad-function
            argv,
            env={**self.environment(), **(environment or {})},
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of databases in other encodings
            timeout=timeout,
            check=False,
        )

    def pid(self) -> Optional[int]:
        """The running server; None when it does not run."""
        return server_pid(self.data)

    def accepts_connections(self) -> bool:
        """Whether the server says that it lets clients in (line 8 of postmaster.pid)."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")

    def isolation(self, marker: Mapping[str, Any]) -> dict[str, str]:
        """Settings that keep the server from touching anything outside."""
        return isolation_settings(marker["major_version"], (marker.get("client") or {}).get("listen", ""))

    def start(self, marker: dict[str, Any]) -> None:
        """Start the server detached from us, caged by its command line; does not wait until it is ready."""
        settings = {
            "config_file": self.below("postgresql.conf"),
            **self.isolation(marker),
        }
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        pg_ctl = os.path.join(marker["bin_dir"], "pg_ctl")
        for attempt in range(20):
            marker["log_offset"] = self.log_size()
            self.write_marker(marker)
            with open(os.devnull, "r+b") as null:
                # Not captured: the server inherits what pg_ctl has, and would hold our pipes open for ever.
                subprocess.run(  # pylint: disable=ansible-bad-function
                    [pg_ctl, "start", "-W", "-s", "-D", self.data, "-l", self.log_file, "-o", options],
                    env=self.environment(),
                    cwd=self.path,
                    stdin=null,
                    stdout=null,
                    stderr=null,
                    timeout=60,
                    check=False,
                )
            # A busy host may need seconds until the server says that it is there. Between two looks at all processes
            # one of them may have handed over to the next.
            began = seen = time.monotonic()
            while self.pid() is None and "FATAL" not in self.log_text(marker):
                seen = time.monotonic() if self.is_starting() else seen
                if time.monotonic() > min(began + LONGEST_START, seen + 2):
                    break
                time.sleep(0.05)
            if self.pid() is not None:
                return
            # A killed server and its children take a moment to be gone.
            if attempt == 19 or not any(words in self.log_text(marker) for words in _STILL_THERE):
                return
            time.sleep(0.5)

    def is_starting(self) -> bool:
        """Whether a process was given our data directory: pg_ctl, its shell, or the server itself."""
        ours = [os.fsencode(word) for word in ("-D", self.data)]
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
                if all(word in words for word in ours):
                    return True
        return False

    def stop(self, marker: Mapping[str, Any]) -> bool:
        """Stop the server: fast, then at once. True when it ran."""
        if self.pid() is None:
            return False
        for mode, seconds in (("fast", 30), ("immediate", 30)):
            self.call(
                [
                    os.path.join(marker["bin_dir"], "pg_ctl"),
                    "stop",
                    "-w",
                    "-s",
                    "-D",
                    self.data,
                    "-m",
                    mode,
                    "-t",
                    str(seconds),
                ],
                timeout=seconds + 10,
            )
            if self.pid() is None:
                return True
        raise RecoveryError(
            f"the side instance at {self.path} on {self.host} (process {self.pid()}) does not stop. Production is not "
            "concerned. Look at what the process waits for, then run again."
        )

    def log_size(self) -> int:
        """Bytes of the server's log."""
        return os.path.getsize(self.log_file) if os.path.exists(self.log_file) else 0

    def log_lines(self, begin: int) -> Iterator[str]:
        """Lines of the server's log from a position on."""
        with contextlib.suppress(FileNotFoundError), open(self.log_file, "rb") as file:
            file.seek(begin)
            for line in file:
                yield line.decode("utf-8", "replace")

    def log_from(self, position: int) -> tuple[str, int]:
        """Whole lines of the server's log from a position on, of what is read at a time, and where they end."""
        with contextlib.suppress(FileNotFoundError), open(self.log_file, "rb") as file:
            file.seek(position)
            text = file.read(LOG_CHUNK)
            whole = text[: text.rfind(b"\n") + 1]
            return whole.decode("utf-8", "replace"), position + len(whole)
        return "", position

    def log_text(self, marker: Mapping[str, Any]) -> str:
        """The server's log since it was last started, without what it says of pages that were not restored."""
        return "".join(without_invalid_pages(self.log_lines(int(marker.get("log_offset", 0)))))

    def invalid_pages(self, marker: Mapping[str, Any], asked: int) -> InvalidPages:
        """Pages that WAL changes and that are not there, since the restore; ``asked`` is the wanted database's OID."""
        return read_invalid_pages(
            self.log_lines(int(marker.get("log_begin", 0))),
            lambda oid: oid == asked or is_restored(oid, marker["plan"]),
        )

    def recovery_log(self, marker: Mapping[str, Any]) -> RecoveryLog:
        """What the server's log says since it was last started."""
        return read_recovery_log(self.log_text(marker))

    def replaying_segment(self) -> Optional[str]:
        """WAL file the startup process works on, from its title; None when it says nothing."""
        server = self.pid()
        for pid in filter(str.isdigit, os.listdir("/proc")) if server else ():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
                if parent == server:
                    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                        title = file.read()
                    match = re.search(r"startup (?:recovering|waiting for) ([0-9A-F]{24})", title)
                    if match:
                        return match.group(1)
        return None

    def end_leftover_pgbackrest(self) -> None:
        """End pgBackRest processes of a run that was killed: those that use this instance's configuration file."""
        ours = f"--config={self.backrest_config}".encode()
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for _look in range(50):
                # A process of another user only bears our name.
                pids = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if ours in _own_arguments(pid)]
                if not pids:
                    return
                for pid in pids if _look == 0 else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), sent)
                time.sleep(0.1)

    # Files

    def write_settings(self, marker: Mapping[str, Any]) -> None:
        """Write postgresql.conf and pg_hba.conf from the marker."""
        settings = {
            **marker["settings"],
            **self.isolation(marker),
            "data_directory": self.data,
            "hba_file": self.below("pg_hba.conf"),
            "ident_file": self.below("pg_ident.conf"),
            "unix_socket_directories": self.run_dir,
            "port": str(marker["port"]),
        }
        if marker.get("client"):
            settings.update(
                {"ssl": "on", "ssl_cert_file": self.below("server.crt"), "ssl_key_file": self.below("server.key")}
            )
        write_atomically(self.below("postgresql.conf"), render_settings(settings))
        write_atomically(self.below("pg_hba.conf"), render_hba(marker.get("client")))

    def remove(self) -> bool:
        """Remove the tree below path, only one with our marker and never through a link. True when it was there."""
        if not os.path.isdir(self.path) or not set(os.listdir(self.path)) - NOT_COUNTED:
            return False
        marker = self.marker()
        names = set(os.listdir(self.path)) - {"lost+found"}
        # The marker last: killed in between, the next run still knows the tree as ours.
        for name in sorted(names, key=lambda entry: entry == MARKER):
            entry = self.below(name)
            if os.path.isdir(entry) and not os.path.islink(entry):
                shutil.rmtree(entry)
            else:
                os.unlink(entry)
        if marker.get("made_path"):
            # A mount point stays.
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
        return True


def _own_arguments(pid: str) -> list[bytes]:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return []
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def system_user() -> str:
    """Name of the operating system user we run as (getpass would believe the environment)."""
    return pwd.getpwuid(os.geteuid()).pw_name
