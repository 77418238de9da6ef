#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_timers
short_description: Ensure that a program of this collection is on a host, and is started by systemd timers
version_added: "0.1.0"
description:
  - Installs one of the programs that take backups where no Ansible is, with its units, and has systemd enable and
    start the timers. Timers and services of the same kind that are no longer wanted are removed.
  - A timer whose unit changed is started again, as it goes by its old schedule until then.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  program:
    description:
      - The program. V(pgbackrest) takes backups with pgBackRest, V(logical) takes dumps, V(metrics) leaves metrics of
        backups, V(verification) tests restores.
      - Without it no program is installed.
    type: str
    choices: [pgbackrest, logical, metrics, verification]
  directory:
    description:
      - Directory that the program's files go below. It belongs to root.
    type: path
  files:
    description:
      - Other files, such as what starts the program. They belong to root.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file.
        type: path
        required: true
      content:
        description: The whole file.
        type: str
        required: true
      group:
        description: Group of the file.
        type: str
        default: root
      mode:
        description: Permissions of the file.
        type: str
        default: "0644"
  units:
    description:
      - Content of each unit by its name. Those that end in C(.timer) are enabled and started.
    type: dict
    default: {}
  owned:
    description:
      - Shell patterns of names of units. What is there of these and is not in O(units) is stopped and removed.
    type: list
    elements: str
    required: true
  end_runs:
    description:
      - Whether a run that a removed timer started is ended as well.
    type: bool
    default: false
attributes:
  check_mode:
    description: Compares, but changes nothing.
    support: full
  diff_mode:
    description: Shows units and O(files) before and after. Of the program it shows which files differ.
    support: full
requirements:
  - systemd, and Python 3.9 or later for the program
"""

EXAMPLES = r"""
- name: Have a dump of the globals every night
  dbre.recovery.systemd_timers:
    program: logical
    directory: /usr/local/lib/dumps
    files:
      - path: /usr/local/lib/dumps/run.py
        content: "{{ lookup('ansible.builtin.file', 'run.py', rstrip=false) }}"
    units:
      dumps@.service: "{{ lookup('ansible.builtin.file', 'dumps@.service', rstrip=false) }}"
      dumps@globals.timer: "{{ lookup('ansible.builtin.file', 'dumps@globals.timer', rstrip=false) }}"
    owned: ["dumps@*.timer"]
  become: true
"""

RETURN = r"""
written:
  description: Files that were made or changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/dumps@globals.timer]
removed:
  description: Units that were removed.
  returned: success
  type: list
  elements: str
  sample: [dumps@shop.timer]
enabled:
  description: Timers that were enabled.
  returned: success
  type: list
  elements: str
  sample: [dumps@globals.timer]
restarted:
  description: Timers that were started, or started again.
  returned: success
  type: list
  elements: str
  sample: [dumps@globals.timer]
"""

import fnmatch
import os
import pkgutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import (
    PACKAGE,
    PROPERTIES,
    program_files,
    timer_steps,
    unit_states,
)

if TYPE_CHECKING:
    # Never imported here: that they are named has Ansible send them, and all that they need, along with this module.
    from ansible_collections.dbre.recovery.plugins.module_utils._dumps import logical_backup
    from ansible_collections.dbre.recovery.plugins.module_utils._monitoring import collector
    from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest import scheduled
    from ansible_collections.dbre.recovery.plugins.module_utils._verification import scheduled as restore_tests

    __all__ = ["collector", "logical_backup", "restore_tests", "scheduled"]

UNITS = "/etc/systemd/system"
# A timer with Persistent=true makes up for runs that were missed since the moment of its stamp.
STAMPS = "/var/lib/systemd/timers"
# Paths below module_utils of the programs that timers start.
PROGRAMS = {
    "pgbackrest": "_pgbackrest/scheduled.py",
    "logical": "_dumps/logical_backup.py",
    "metrics": "_monitoring/collector.py",
    "verification": "_verification/scheduled.py",
}


def shipped(path: str) -> str:
    """Text of a file below module_utils that came with this module."""
    room, name = path.split("/", 1)
    return (pkgutil.get_data(f"{PACKAGE}.{room}", name) or b"").decode()


class Host:
    """Files and systemd of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changed = False
        self.written: list[str] = []
        self.diff: list[dict[str, str]] = []

    def systemctl(self, *arguments: str) -> str:
        rc, stdout, stderr = self.module.run_command(["systemctl", *arguments], environ_update={"LC_ALL": "C"})
        if rc != 0:
            raise RecoveryError(
                f"systemd on {socket.gethostname()} cannot do 'systemctl {' '.join(arguments)}': {stderr.strip()}. "
                "Backups and dumps that are there were not touched. Mend the cause (systemctl status, systemd-analyze "
                "verify UNIT) and run this again."
            )
        return stdout

    def make_directory(self, path: str) -> None:
        if not os.path.isdir(path):
            self.changed = True
            if not self.module.check_mode:
                self.make_directory(os.path.dirname(path))
                os.mkdir(path)
                os.chmod(path, 0o755)

    def put(self, path: str, text: str, group: str = "root", mode: str = "0644", shown: bool = True) -> None:
        """Have the file with this text, owner and mode."""
        self.make_directory(os.path.dirname(path))
        before = None
        with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            before = file.read()
        if before != text:
            self.changed = True
            self.written.append(path)
            self.diff.append(
                {
                    "before_header": path,
                    "after_header": path,
                    "before": before or "" if shown else "",
                    "after": text if shown else f"{len(text)} characters of the program\n",
                }
            )
            if not self.module.check_mode:
                write_atomically(path, text)
        if os.path.exists(path):
            self.changed = self.module.set_fs_attributes_if_different(
                {
                    "path": path,
                    "owner": "root",
                    "group": group,
                    "mode": mode,
                    "seuser": None,
                    "serole": None,
                    "setype": None,
                    "selevel": None,
                    "secontext": [None, None, None],
                    "attributes": None,
                },
                self.changed,
            )

    def remove(self, units: list[str], end_runs: bool) -> None:
        """Stop units and take them away from systemd, with what it remembers of them."""
        timers = [name for name in units if name.endswith(".timer")]
        services = [f"{name[: -len('.timer')]}.service" for name in timers]
        self.changed = self.changed or bool(units)
        listed = {"before_header": UNITS, "after_header": UNITS, "after": ""}
        self.diff += [{**listed, "before": f"{name}\n"} for name in units]
        if self.module.check_mode or not units:
            return
        if timers:
            self.systemctl("disable", "--now", *timers)
        if timers and end_runs:
            self.systemctl("stop", *services)
        for path in [*(f"{UNITS}/{name}" for name in units), *(f"{STAMPS}/stamp-{name}" for name in timers)]:
            with suppress(FileNotFoundError):
                os.unlink(path)
        self.systemctl("daemon-reload")
        for name in services:
            with suppress(RecoveryError):  # most have not failed
                self.systemctl("reset-failed", name)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Make program, files, units and timers as wanted, and return the module's result."""
    params = module.params
    host = Host(module)
    if params["program"]:
        for path, text in program_files(PROGRAMS[params["program"]], shipped).items():
            host.put(os.path.join(params["directory"], PACKAGE.replace(".", "/"), path), text, shown=False)
    for file in params["files"]:
        host.put(file["path"], file["content"], file["group"], file["mode"])
    there = sorted(os.listdir(UNITS)) if os.path.isdir(UNITS) else []
    surplus = [
        name
        for name in there
        if name not in params["units"] and any(fnmatch.fnmatchcase(name, pattern) for pattern in params["owned"])
    ]
    host.remove(surplus, params["end_runs"])
    before = len(host.written)
    for name, text in params["units"].items():
        host.put(f"{UNITS}/{name}", text)
    written = [os.path.basename(path) for path in host.written[before:]]
    timers = [name for name in params["units"] if name.endswith(".timer")]
    states = unit_states(host.systemctl("show", f"--property={','.join(PROPERTIES)}", *timers)) if timers else {}
    steps = timer_steps(timers, states, written)
    if not module.check_mode:
        if written or any(state["outdated"] for state in states.values()):
            host.systemctl("daemon-reload")
        if steps["enable"]:
            host.systemctl("enable", *steps["enable"])
        if steps["restart"]:
            host.systemctl("restart", *steps["restart"])
    return {
        "changed": host.changed or bool(steps["enable"] or steps["restart"]),
        "written": host.written,
        "removed": surplus,
        "enabled": steps["enable"],
        "restarted": steps["restart"],
        "diff": host.diff,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "choices": list(PROGRAMS)},
            "directory": {"type": "path"},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "group": {"type": "str", "default": "root"},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "units": {"type": "dict", "default": {}},
            "owned": {"type": "list", "elements": "str", "required": True},
            "end_runs": {"type": "bool", "default": False},
        },
        required_by={"program": ["directory"]},
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**ensure(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
