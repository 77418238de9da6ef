# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.plugin_utils._options import check_options, known_options


class ActionModule(ActionBase):
    """Looks at variables and inventory on the controller; changes nothing."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec({"playbook": {"type": "str", "required": True}})
        variables = task_vars or {}
        given = self._templar.template({name: variables[name] for name in variables if name.startswith("dr_")})
        try:
            options = check_options(known_options(), args["playbook"], given, variables.get("groups") or {})
        except RecoveryError as error:
            return {**result, "failed": True, "msg": error.msg}
        return {**result, "changed": False, "options": options}
