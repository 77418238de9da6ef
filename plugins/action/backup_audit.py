# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.audit import MET
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import iso_time
from ansible_collections.dbre.recovery.plugins.plugin_utils._audit.rows import Answer, rows
from ansible_collections.dbre.recovery.plugins.plugin_utils._audit.shown import page, table
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import show

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "testing_hosts": {"type": "list", "elements": "str", "default": []},
    "policy": {"type": "str", "required": True},
    "found": {"type": "str", "required": True},
    "rds": {"type": "str", "required": True},
    "rds_tests": {"type": "str"},
    "dir": {"type": "path", "default": "audits"},
    "strict": {"type": "bool", "default": False},
}
FORMAT = 1


class ActionModule(ActionBase):
    """Reads what hosts have answered out of their variables, and writes on the controller only."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENT_SPEC)
        hostvars = (task_vars or {}).get("hostvars") or {}
        now = time.time()
        answers = [self._answer(host, hostvars[host], args) for host in dict.fromkeys(args["hosts"])]
        only_testing = [host for host in args["testing_hosts"] if host not in args["hosts"]]
        others = [hostvars[host].get(args["found"]) or {} for host in only_testing]
        audit: dict[str, Any] = {"format": FORMAT, "made": iso_time(int(now)), "hosts": rows(answers, others, now)}
        missed = [row for row in audit["hosts"] if row["verdict"] != MET]
        result.update(changed=False, audit=audit)
        where = Path(args["dir"])
        if not self._task.check_mode:
            try:
                where.mkdir(parents=True, exist_ok=True)
                write_atomically(str(where / "audit.json"), json.dumps(audit, indent=2) + "\n", mode=0o644)
                write_atomically(str(where / "audit.html"), page(audit), mode=0o644)
            except OSError as error:
                return {
                    **result,
                    "failed": True,
                    "msg": f"the audit cannot be written to {where} on the controller: {error}. Name a folder that "
                    "ansible-playbook can write to: -e audit_dir=FOLDER",
                }
            result["path"] = str(where / "audit.html")
        show(self._display, table(audit["hosts"]))
        if missed and args["strict"]:
            return {
                **result,
                "failed": True,
                "msg": f"{len(missed)} of {counted(len(audit['hosts']), 'host')} miss what their tier promises, or "
                "nobody knows; the table above says why. Nothing was changed.",
            }
        return result

    def _answer(self, host: str, variables: Mapping[str, Any], args: Mapping[str, Any]) -> Answer:
        """What the host's tasks have registered; what was skipped has said nothing."""

        def said(name: str) -> Mapping[str, Any]:
            value = variables.get(args[name] or "") or {}
            return {} if value.get("skipped") else value

        given = {
            name: self._templar.template(variables.get(name))
            for name in ("backup_tier", "backup_tiers", "backup_policy")
        }
        return Answer(
            host=host,
            tier=str(given["backup_tier"] or "standard"),
            tiers=given["backup_tiers"] or {},
            overrides=given["backup_policy"] or {},
            policy=said("policy"),
            found=said("found"),
            rds=said("rds"),
            rds_tests=said("rds_tests"),
        )
