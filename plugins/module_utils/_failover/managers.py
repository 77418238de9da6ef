# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that promote standbys by themselves. Nothing is done behind their back."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable
from contextlib import suppress

from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import Manager

# By the name of the process: whose it is, how its unit is called, and its own command for a failover.
_MANAGERS = {
    "patroni": ("Patroni", "patroni*", "patronictl -c /etc/patroni/config.yml failover"),
    "repmgrd": ("repmgr", "repmgrd*", "repmgr -f /etc/repmgr.conf standby promote --siblings-follow"),
    "pg_autoctl": ("pg_auto_failover", "pgautofailover*", "pg_autoctl perform failover"),
    "pacemakerd": ("Pacemaker", "pacemaker*", "crm_resource --ban --resource RESOURCE --node NODE"),
    "keepalived": ("keepalived", "keepalived*", "systemctl stop keepalived"),
}
_INTERPRETERS = ("python", "python3", "sh", "bash")


def program_of(argv: list[str]) -> str:
    """Name of the program that a command line runs; of a script, the script's."""
    names = [os.path.basename(word) for word in argv if word and not word.startswith("-")]
    if not names:
        return ""
    interpreter = names[0].rstrip("0123456789.") in ("python", *_INTERPRETERS)
    return names[1] if interpreter and len(names) > 1 else names[0]


def is_of_this_host(status: str) -> bool:
    """Whether a process (its ``/proc/PID/status``) is in no container, where it would manage what is in there.

    In a namespace of its own it has another number there, beside the one that we see.
    """
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) < 2


def managers_among(programs: Collection[str], units: Iterable[str]) -> list[Manager]:
    """Managers of which a process runs (``programs``) or a unit is enabled (``units``, names of unit files)."""
    known = [os.path.basename(unit) for unit in units]
    found: list[Manager] = []
    for program, (name, pattern, command) in _MANAGERS.items():
        enabled = next((unit for unit in known if unit.startswith(pattern[:-1])), None)
        if program in programs:
            found.append({"name": name, "found": f"the process {program} runs", "command": command})
        elif enabled:
            found.append({"name": name, "found": f"{enabled} is enabled", "command": command})
    return found


def find_managers() -> list[Manager]:
    """Those of this host."""
    programs = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file, open(f"/proc/{pid}/status") as status:
            if is_of_this_host(status.read()):
                programs.add(program_of(file.read().decode(errors="replace").split("\0")))
    units = glob.glob("/etc/systemd/system/*.wants/*.service")
    return managers_among(programs, [unit for unit in units if _can_start(unit)])


def _can_start(unit: str) -> bool:
    """Whether an enabled unit would start: Debian enables Patroni's when the package is installed, which asks for its
    configuration file (ConditionPathExists)."""
    return not os.path.basename(unit).startswith("patroni") or os.path.exists(patroni_config(unit))


def patroni_config(unit: str) -> str:
    """The configuration file of a unit of Patroni as Debian has it."""
    name = os.path.basename(unit)[: -len(".service")]
    return f"/etc/patroni/{name.partition('@')[2] or 'config'}.yml"
