# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.errors import IncidentError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import plan_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.record import IncidentRecord, utc_now
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import finished_text, summary
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.values import merge
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import show

STATES = ["read", "open", "planned", "waiting", "phase", "done", "failed", "abandoned"]
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "id": {"type": "str", "required": True},
    "dir": {"type": "path", "default": "incidents"},
    "state": {"type": "str", "required": True, "choices": STATES},
    "scenario": {"type": "str"},
    "parameters": {"type": "dict", "default": {}},
    "milestones": {"type": "list", "elements": "str", "default": []},
    "phase": {"type": "str"},
    "keep": {"type": "dict", "default": {}},
    "data": {"type": "dict", "default": {}},
    "msg": {"type": "str"},
    "step": {"type": "str"},
    "abandon": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """Keeps the incident record on the controller; the host of the task is only named in it."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            ARGUMENT_SPEC,
            required_if=[
                ("state", "open", ["scenario"]),
                ("state", "phase", ["phase"]),
                ("state", "failed", ["msg"]),
                ("state", "abandoned", ["msg"]),
            ],
        )
        known = task_vars or {}
        # This result is registered under this name. What was known stays known: undoing a containment needs it.
        last: dict[str, Any] = (known.get("incident_result") or {}).get("record") or {}
        if last:
            result["record"] = last
        try:
            data = self._data(args, last, known)
            host = str(known.get("inventory_hostname", "localhost"))
            drill = self._templar.template(known.get("dbre_drill"))
            record, changed = self._call({**args, "data": data}, host, bool(known.get("__dr_giving_up")), drill)
        except (IncidentError, AnsibleError) as error:
            result.update(failed=True, msg=str(error))
            return result
        except OSError as error:
            result.update(
                failed=True,
                msg=f"the incident record in {args['dir']} on the controller cannot be kept: {error}. "
                "Give ansible-playbook a folder it can write to (dir, in the playbooks dr_report_dir).",
            )
            return result
        result.update(changed=changed, record=record)
        return result

    def _data(self, args: dict[str, Any], last: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        """What the task gives, what the phase that it ends has found, and in check mode what was collected so far.

        In check mode nothing is on disk, so that travels in the result of the task before.
        """
        keep = last.get("keep") or {} if args["state"] in ("phase", "done") else {}
        found = {subject: self._templar.template(known[name]) for subject, name in keep.items() if name in known}
        data = merge({subject: value for subject, value in found.items() if value}, args["data"])
        return merge(last.get("data") or {}, data) if self._task.check_mode else data

    def _call(
        self, args: dict[str, Any], host: str, giving_up: bool, drill: dict[str, Any] | None
    ) -> tuple[dict[str, Any], bool]:
        record = IncidentRecord(
            args["dir"],
            args["id"],
            scenario=args["scenario"] or "",
            parameters=args["parameters"],
            milestones=args["milestones"],
            check_mode=self._task.check_mode,
            host=host,
            drill=drill,
        )
        if args["state"] == "read":
            return record.read()
        if args["state"] == "open":
            opened, changed = record.open()
            if opened["closed"] and not giving_up:
                show(self._display, finished_text(opened))
            return opened, changed
        if args["state"] == "planned":
            planned, changed = record.planned(args["data"])
            show(self._display, plan_text(planned, utc_now()))
            return planned, changed
        if args["state"] == "waiting":
            return record.wait()
        if args["state"] == "phase":
            return record.phase(args["phase"], args["data"], args["keep"], args["abandon"])
        if args["state"] == "abandoned":
            return record.abandoned(args["msg"])
        ended = record.end(args["state"], args["data"], args["msg"], args["step"])
        if record.report:
            show(self._display, f"{summary(record.report)}\nReport: {record.path / 'report.html'}")
        return ended
