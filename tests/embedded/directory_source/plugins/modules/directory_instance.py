# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a side instance of a base backup and WAL, or takes it away."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.acme.files.plugins.module_utils.directory import Directory, plan, restore
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["promoted", "absent"], "default": "promoted"},
            "directory": {"type": "path"},
            "path": {"type": "path", "required": True},
            "incident": {"type": "str"},
            "database": {"type": "str"},
            "target": {"type": "dict"},
            "server": {"type": "dict"},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    order, instance = module.params, SideInstance(module.params["path"])
    try:
        if order["state"] == "absent":
            module.exit_json(**ensure_state(instance, "absent", check_mode=module.check_mode))
        directory = Directory(order["directory"])
        if module.check_mode:
            module.exit_json(changed=True, plan=plan(directory, instance, order))
        changed = restore(directory, instance, order)
        done: dict[str, Any] = ensure_state(instance, "promoted", target=order["target"])
        module.exit_json(**{**done, "changed": changed or done["changed"]})
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
