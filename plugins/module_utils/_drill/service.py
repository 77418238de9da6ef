# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units of systemd that run a copy and its standby, made and removed as root.

Nothing that the database's user can write gets into a unit: it has a path and a user that the caller names, and runs
as that user what lies at the path. No unit but the two of a stanza's drill is ever touched.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._drill.copy import STANDBY
from ansible_collections.dbre.recovery.plugins.module_utils._drill.pair import ROLES, SERVE, unit_name
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import find_managers
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import MARKER

# Gone with the next boot, as the servers are.
UNITS = "/run/systemd/system"
# Where systemctl mask puts its link, which goes before the unit.
MASKS = ("/etc/systemd/system", UNITS)
_PATH = re.compile(r"/[A-Za-z0-9._@+/-]+")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_OF_PATH = "# Drill at "


def unit_text(path: str, place: str, user: str) -> str:
    """A unit that runs the server at ``place``, of the copy at ``path``, as ``user``; it is never started again."""
    return (
        f"{_OF_PATH}{path}\n[Unit]\nDescription=A server of the drill at {path} (dbre.recovery)\n"
        f"[Service]\nType=exec\nUser={user}\nExecStart=/bin/sh {place}/{SERVE}\n"
        "KillMode=mixed\nKillSignal=SIGINT\nTimeoutStopSec=60\nRestart=no\n"
    )


class Services:
    """Both units of the drill of a stanza, whose copy is at ``path``."""

    def __init__(self, path: str, stanza: str, drill: str) -> None:
        if not _PATH.fullmatch(path):
            raise RecoveryError(f"{path!r} cannot be the path of a copy. Nothing was touched.")
        self.path, self.drill = path, drill
        self.units = {role: unit_name(stanza, role) for role in ROLES}
        self.places = {ROLES[0]: path, ROLES[1]: os.path.join(path, STANDBY)}
        self.host = socket.gethostname()

    def left(self) -> list[str]:
        """What there is of them, in words."""
        found = [os.path.join(place, unit) for place in dict.fromkeys((UNITS, *MASKS)) for unit in self.units.values()]
        files = [f"{name} is still there" for name in found if os.path.lexists(name)]
        loaded = run(["systemctl", "list-units", "--all", "--plain", "--no-legend", *self.units.values()])[1]
        return files + [f"systemd still knows {line.split()[0]}" for line in loaded.splitlines() if line.strip()]

    def start(self, user: str) -> dict[str, Any]:
        """Make both units, and start them."""
        if os.geteuid() != 0 or not os.path.isdir(UNITS):
            raise RecoveryError(f"root and systemd are needed on {self.host} to run the copy and its standby as units.")
        if not _USER.fullmatch(user) or pwd.getpwnam(user).pw_uid == 0:
            raise RecoveryError(f"{user!r} cannot be the user of a server. Nothing was started.")
        self.refuse_others(needed=True)
        if managers := find_managers():
            # A failover is left to such a one, and this one knows nothing of the copy.
            raise RecoveryError(
                f"{managers[0]['name']} manages servers on {self.host} ({managers[0]['found']}), so that a failover "
                "there is left to it. Nothing was started. Have the copy on a host without it (dr_recovery_group)."
            )
        for role, unit in self.units.items():
            write_atomically(os.path.join(UNITS, unit), unit_text(self.path, self.places[role], user))
        self._call("daemon-reload")
        self._call("start", *self.units.values())
        return {"changed": True, "services": self.units}

    def remove(self, check_mode: bool) -> dict[str, Any]:
        """End what both run, and remove them with their masks; what is left all the same is in ``left``."""
        left = self.left() if os.path.isdir(UNITS) else []
        if not left:
            return {"changed": False, "left": []}
        self.refuse_others(needed=False)
        if check_mode:
            return {"changed": True, "left": left}
        units = list(self.units.values())
        run(["systemctl", "kill", "--signal=SIGKILL", *units])
        run(["systemctl", "stop", *units])
        for place in MASKS:
            for unit in units:
                name = os.path.join(place, unit)
                # In /etc there is nothing of the drill but what systemctl mask has put there.
                if os.path.islink(name) and os.readlink(name) == os.devnull:
                    os.unlink(name)
        for unit in units:
            if os.path.isfile(os.path.join(UNITS, unit)):
                os.unlink(os.path.join(UNITS, unit))
        run(["systemctl", "daemon-reload"])
        run(["systemctl", "reset-failed", *units])
        return {"changed": True, "left": self.left()}

    def refuse_others(self, *, needed: bool) -> None:
        """Refuse units of another drill: of another path, or while another one's copy is at this."""
        for unit in self.units.values():
            name = os.path.join(UNITS, unit)
            if os.path.isfile(name):
                with open(name, encoding="utf-8") as file:
                    head = file.readline().rstrip("\n")
                if head != f"{_OF_PATH}{self.path}":
                    raise RecoveryError(f"{name} on {self.host} is of another drill ({head}). Nothing was touched.")
        owner = self._owner()
        if owner != self.drill and (needed or owner is not None):
            raise RecoveryError(
                f"drill {owner} has its copy at {self.path} on {self.host}. Nothing was touched. If it still runs, "
                f"wait for its end; else remove it: dr-abandon with -e dr_incident_id={owner}."
            )

    def _owner(self) -> Optional[str]:
        """The drill whose copy is at the path."""
        try:
            descriptor = os.open(os.path.join(self.path, MARKER), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, encoding="utf-8") as file:
                return str(json.loads(file.read(1024 * 1024)).get("incident"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RecoveryError(f"{self.path}/{MARKER} on {self.host} is not ours: {error}") from error

    def _call(self, *words: str) -> None:
        rc, stdout, stderr = run(["systemctl", *words])
        if rc != 0:
            raise RecoveryError(f"systemctl {' '.join(words)} on {self.host}: {(stderr or stdout).strip()}")
