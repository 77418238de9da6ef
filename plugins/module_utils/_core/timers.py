# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of this collection on systemd timers: the files a program needs, and what systemd has to be told."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

PACKAGE = "ansible_collections.dbre.recovery.plugins.module_utils"
# Of `systemctl show`.
PROPERTIES = ("Id", "ActiveState", "UnitFileState", "NeedDaemonReload")


class UnitState(TypedDict):
    """What systemd knows of a unit; ``outdated``: its file was changed since systemd read it."""

    active: bool
    enabled: bool
    outdated: bool


class TimerSteps(TypedDict):
    """Timers that are to be enabled, and those to be started, or started again so that they go by their new file."""

    enable: list[str]
    restart: list[str]


def imported(text: str) -> Iterator[str]:
    """Modules of module_utils that a module's text imports, as paths below module_utils."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            room, _dot, name = (node.module or "")[len(PACKAGE) + 1 :].partition(".")
            for each in [name] if name else [alias.name for alias in node.names]:
                yield f"{room}/{each.replace('.', '/')}.py"


def program_files(start: str, read: Callable[[str], str]) -> dict[str, str]:
    """Text by path below module_utils of each file that a program needs, beginning with ``start``.

    ``read`` gives the text of a path below module_utils.
    """
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = read(path)
            waiting += imported(found[path])
    return dict(sorted(found.items()))


def unit_states(text: str) -> dict[str, UnitState]:
    """By unit, what ``systemctl show`` says of PROPERTIES: a block of NAME=VALUE for each, parted by empty lines."""
    states: dict[str, UnitState] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            states[values["Id"]] = {
                "active": values.get("ActiveState") == "active",
                "enabled": values.get("UnitFileState") == "enabled",
                "outdated": values.get("NeedDaemonReload") == "yes",
            }
    return states


def timer_steps(timers: Sequence[str], states: Mapping[str, UnitState], written: Sequence[str]) -> TimerSteps:
    """What makes timers go by their files, given the names of the units that were just written.

    A timer that runs goes by its old schedule until it is started again.
    """
    none: UnitState = {"active": False, "enabled": False, "outdated": False}
    known = {name: states.get(name, none) for name in timers}
    return {
        "enable": [name for name, state in known.items() if not state["enabled"]],
        "restart": [
            name for name, state in known.items() if not state["active"] or state["outdated"] or name in written
        ],
    }
