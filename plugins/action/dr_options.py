# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.plugin_utils._options import (
    INCIDENT,
    check_options,
    known_options,
    own_options,
)

# What these do, they do to an incident that was begun before.
OF_ANOTHER_RUN = ("dr-release", "dr-abandon")
# What these do, they do to one server at a time.
ONE_PRIMARY = {
    "dr-table-drop": "recovers one server at a time",
    "dr-corruption": "recovers one server at a time",
    "dr-drill": "makes a copy of one server at a time",
    "dr-primary-failure": "replaces one primary at a time",
}


class ActionModule(ActionBase):
    """Looks at variables and inventory on the controller; changes nothing."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec({"playbook": {"type": "str", "required": True}})
        variables = task_vars or {}
        known, playbook = known_options(), args["playbook"]
        own = own_options(known, playbook)
        words = {name: value for name, value in variables.items() if name.startswith("dr_")}
        # Words of others may refer to what is not there for this playbook.
        given = {**words, **self._templar.template({name: words[name] for name in words if name in own})}
        try:
            # Ansible has read them already, and keeps what it read.
            for_this_run = set(load_extra_vars(self._loader))
            options = check_options(known, playbook, given, variables.get("groups") or {}, for_this_run)
            _refuse_more_than_one(playbook, variables.get("ansible_play_hosts_all") or [])
        except RecoveryError as error:
            return {**result, "failed": True, "msg": error.msg}
        # A form leaves it empty, and what was given so for a run cannot be set by a task.
        began = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        if INCIDENT in own and playbook not in OF_ANOTHER_RUN:
            options[INCIDENT] = options[INCIDENT] or f"{playbook.removeprefix('dr-')}-{began}"
        return {**result, "changed": False, "options": options}


def _refuse_more_than_one(playbook: str, hosts: list[str]) -> None:
    if playbook in ONE_PRIMARY and len(hosts) > 1:
        raise RecoveryError(
            f"{playbook} {ONE_PRIMARY[playbook]}. Hosts here: {', '.join(hosts)}. Nothing was touched. "
            "Name the primary with -l HOST."
        )
