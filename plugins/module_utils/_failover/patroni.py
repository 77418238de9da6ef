# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Patroni says of its cluster. It is asked by patronictl, which reads the store that all members share."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._failover.managers import (
    is_of_this_host,
    patroni_config,
    program_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import PatroniMember, PatroniView

# Seconds for one answer: with its store gone, patronictl asks on for ever.
PATIENCE = 15.0
LEADERS = ("leader", "standby_leader")
_SETTINGS = ("pause", "synchronous_mode", "ttl", "loop_wait")
_SCALAR = re.compile(r"(\w+):[ \t]+(\S.*?)[ \t]*(?:[ \t]#.*)?")
_DATA = re.compile(r"^[ \t]+data_dir:[ \t]+(\S+)", re.MULTILINE)
_SCHEDULED = re.compile(r"Switchover scheduled at: (\S+)")


@dataclass(frozen=True)
class Installed:
    """A Patroni of this host: its program, its configuration file, the unit that starts it, and whether it runs."""

    program: str
    config: str
    unit: str
    running: bool


def scalars(text: str) -> dict[str, str]:
    """Top-level settings with a plain value, out of YAML in blocks, as Patroni's files are and patronictl writes it.

    A target's Python has no YAML; what is nested is left out.
    """
    found = (_SCALAR.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2].strip("'\"") for match in found if match}


def members_of(text: str) -> list[PatroniMember]:
    """Members out of ``patronictl list -f json`` (Patroni 2 to 4); RecoveryError where that is something else."""
    try:
        rows = json.loads(text)
        return [
            {
                "name": str(row["Member"]),
                "role": str(row["Role"]).lower().replace(" ", "_"),
                "state": str(row["State"]).lower(),
                "timeline": int(row["TL"]) if str(row.get("TL") or "").isdigit() else None,
                "tags": dict(row["Tags"]) if isinstance(row.get("Tags"), Mapping) else {},
            }
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RecoveryError(f"patronictl list has answered what nobody understands: {text.strip()[:200]}") from error


def leader_of(members: Sequence[PatroniMember]) -> str:
    """The member that has the leader lock; empty where none has."""
    return next((member["name"] for member in members if member["role"] in LEADERS), "")


def started_by(argv: Sequence[str], directory: str) -> Optional[tuple[str, str]]:
    """(directory of the program, configuration file) of a command line of Patroni that was started in a directory."""
    words = [word for word in argv if word]
    script = next((number for number, word in enumerate(words) if os.path.basename(word) == "patroni"), None)
    if script is None or program_of(words) != "patroni":
        return None
    files = [word for word in words[script + 1 :] if not word.startswith("-")]
    return os.path.dirname(words[script]), os.path.join(directory, files[0]) if files else ""


def _program(directory: str) -> str:
    beside = os.path.join(directory, "patronictl")
    return beside if directory and os.access(beside, os.X_OK) else "patronictl"


def _running() -> Iterator[Installed]:
    """Those that run. Anybody may call a process so: only ours and root's are believed, whose file is then read."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid not in (0, os.geteuid()):
                continue
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                if not is_of_this_host(file.read()):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                argv = line.read().decode(errors="replace").split("\0")
            found = started_by(argv, os.readlink(f"/proc/{pid}/cwd"))
            if found and found[1]:
                yield Installed(_program(found[0]), found[1], "", True)


def _installed() -> list[Installed]:
    paths = sorted(glob.glob("/etc/systemd/system/*.wants/patroni*.service"))
    units = {patroni_config(path): os.path.basename(path) for path in paths}
    found = {each.config: replace(each, unit=units.get(each.config, "")) for each in _running()}
    dead = [Installed("patronictl", config, unit, False) for config, unit in units.items() if config not in found]
    return [*found.values(), *dead]


def view_of(data: str) -> PatroniView:
    """What the Patroni that manages a data directory of this host says; ``unread`` where it cannot be asked."""
    found = _installed()
    for each in found:
        with suppress(OSError), open(each.config, encoding="utf-8") as file:
            text = file.read()
            named = [os.path.normpath(name.strip("'\"")) for name in _DATA.findall(text)]
            if os.path.normpath(data) in named:
                return _ask(each, scalars(text))
    files = ", ".join(each.config for each in found) or "no configuration file that is known"
    why = f"the data directory {data} is not that of a Patroni which can be asked as this user ({files})"
    return _unread(Installed("patronictl", "", "", False), {}, why)


def _unread(installed: Installed, own: Mapping[str, str], why: str) -> PatroniView:
    return {
        "program": installed.program,
        "config": installed.config,
        "scope": own.get("scope", ""),
        "member": own.get("name", ""),
        "unit": installed.unit,
        "running": installed.running,
        "unread": why,
        "members": [],
        "settings": {},
        "configuration": "",
        "scheduled": "",
    }


def _ask(installed: Installed, own: Mapping[str, str]) -> PatroniView:
    if not own.get("scope") or not own.get("name"):
        return _unread(installed, own, f"{installed.config} does not have scope and name")
    ask = Asked(installed.program, installed.config, own["scope"])
    view = _unread(installed, own, "")
    try:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask.told, (["list", "-f", "json"], ["list"], ["show-config"])))
        members = members_of(answers[0])
    except RecoveryError as error:
        return {**view, "unread": error.msg}
    scheduled = _SCHEDULED.search(answers[1])
    settings = scalars(answers[2])
    return {
        **view,
        "members": members,
        "settings": {name: settings[name] for name in _SETTINGS if name in settings},
        "configuration": hashlib.sha256(answers[2].encode()).hexdigest(),
        "scheduled": scheduled[1] if scheduled else "",
    }


@dataclass(frozen=True)
class Asked:
    """patronictl for one cluster."""

    program: str
    config: str
    scope: str

    def argv(self, words: Sequence[str]) -> list[str]:
        """The command line: ``words`` are the command and its options."""
        return [self.program, "-c", self.config, words[0], self.scope, *words[1:]]

    def told(self, words: Sequence[str]) -> str:
        """What it prints; RecoveryError where it fails or does not end."""
        rc, stdout, stderr = run(self.argv(words), PATIENCE)
        if rc != 0:
            why = ([line for line in stderr.splitlines() if line.strip()] or [f"it ended with {rc}"])[-1]
            raise RecoveryError(f"{' '.join(self.argv(words))}: {why.strip()}")
        return stdout

    def members(self) -> list[PatroniMember]:
        """All members as they are now; RecoveryError where the store does not answer."""
        return members_of(self.told(["list", "-f", "json"]))

    def do(self, words: Sequence[str], limit: float) -> str:
        """Have it done, and what it said of that: a refusal ends with 0 as success does, so the world has to tell."""
        rc, stdout, stderr = run(self.argv(words), limit)
        said = [line.strip() for line in stdout.splitlines() if line[:1] not in ("+", "|", " ", "")]
        errors = [line.strip() for line in stderr.splitlines() if line.strip().startswith("Error")]
        return " ".join([*said[1:], *errors]) or (stderr.strip() if rc else "")


def as_text(tags: Mapping[str, Any]) -> str:
    """Tags for people."""
    return ", ".join(f"{name}: {json.dumps(value)}" for name, value in sorted(tags.items())) or "no tags"
