# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident import verdict
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.copy_inventory import copy_inventory
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.drill import Drilled, begin, judge, read_drill
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import show

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "required": True, "choices": ["read", "begun", "recovered", "judged"]},
    "id": {"type": "str", "required": True},
    "dir": {"type": "path", "required": True},
    "host": {"type": "str"},
    "path": {"type": "str"},
    "stanza": {"type": "str"},
    "playbook": {"type": "path"},
    "options": {"type": "dict", "default": {}},
    "copy": {"type": "dict", "default": {}},
    "damage": {"type": "dict", "default": {}},
    "run": {"type": "dict", "default": {}},
    "comparison": {"type": "dict", "default": {}},
    "removed": {"type": "dict", "default": {}},
    "failed": {"type": "str", "default": ""},
    "kept": {"type": "bool", "default": False},
}
# What ansible-playbook was told of its connections on its command line, and the variable that says the same.
_TOLD = {
    "remote_user": "ansible_user",
    "private_key_file": "ansible_ssh_private_key_file",
    "ssh_common_args": "ansible_ssh_common_args",
    "ssh_extra_args": "ansible_ssh_extra_args",
}


class ActionModule(ActionBase):
    """Runs the playbook of a scenario against the copy, on the controller, and judges what came of it."""

    _requires_connection = False
    _supports_check_mode = False
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENT_SPEC,
            required_if=[
                ("state", "begun", ["host", "path", "stanza"]),
                ("state", "recovered", ["host", "playbook", "copy"]),
            ],
        )
        folder = Path(args["dir"]).expanduser().absolute()
        try:
            if args["state"] == "read":
                return {**result, "changed": False, "drill": read_drill(folder / args["id"])}
            if args["state"] == "begun":
                of = str((task_vars or {})["inventory_hostname"])
                drill = {"id": args["id"], "of": of, **{name: args[name] for name in ("host", "path", "stanza")}}
                begin(folder / args["id"], drill)
                return {**result, "changed": True, "drill": drill}
            if args["state"] == "recovered":
                status = self._recover(args, folder, task_vars or {})
                # How it ended is judged at the end, with all else.
                return {**result, "changed": True, "failed": False, "rc": status}
            return {**result, **self._judge(args, folder / args["id"])}
        except (IncidentError, OSError) as error:
            return {**result, "failed": True, "msg": str(error)}

    def _recover(self, args: dict[str, Any], folder: Path, known: dict[str, Any]) -> int:
        """Exit status of the playbook, in whose inventory there is the copy alone."""
        hosts = known["hostvars"]
        here = str(known["inventory_hostname"])
        drill = {"of": here, "set": args["copy"].get("set"), "host": args["host"]}
        inventory = copy_inventory(args["copy"], drill, hosts[args["host"]], hosts[here], self._told(args["host"]))
        given = {**args["options"], "dr_incident_id": args["id"], "dr_report_dir": str(folder), "dr_confirm": "yes"}
        with tempfile.TemporaryDirectory(prefix="dbre-drill.") as place:
            # For this user only: how a host is reached may hold a password.
            where, options = Path(place, "inventory.json"), Path(place, "options.json")
            if args["kept"]:
                # Who works with the copy afterwards needs it, and so do the commands of the report.
                where = folder / args["id"] / "inventory.json"
            write_atomically(where, json.dumps(inventory))
            options.write_text(json.dumps(given), encoding="utf-8")
            command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), "-e", f"@{options}"]
            return self._follow([*command, str(args["playbook"])])

    def _told(self, name: str) -> dict[str, Any]:
        """What ansible-playbook was told on its command line of how hosts are reached."""
        told = {variable: context.CLIARGS.get(option) for option, variable in _TOLD.items()}
        passwords = {
            "ansible_password": getattr(self._play_context, "password", None),
            "ansible_become_password": getattr(self._play_context, "become_pass", None),
        }
        return {variable: value for variable, value in {"ansible_host": name, **told, **passwords}.items() if value}

    def _follow(self, command: list[str]) -> int:
        """Run it, and show its words as they come."""
        environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_INVENTORY"}
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                show(self._display, f"  | {line.rstrip()}")
        return process.returncode

    def _judge(self, args: dict[str, Any], folder: Path) -> dict[str, Any]:
        names = ("copy", "damage", "run", "comparison", "removed", "failed", "kept")
        report = judge(folder, Drilled(**{name: args[name] for name in names}))
        told = f"Drill {args['id']}: {report['headline']}."
        where = f"Report: {folder / 'report.html'}" if (folder / "report.html").exists() else ""
        if report["verdict"] != verdict.PROVED:
            said = [told, "Production was not touched." if report["drill"]["untouched"] else "", where]
            return {"changed": True, "failed": True, "msg": " ".join(filter(None, said)), "verdict": report["verdict"]}
        show(self._display, f"{told}\n{where}")
        return {"changed": True, "verdict": report["verdict"]}
