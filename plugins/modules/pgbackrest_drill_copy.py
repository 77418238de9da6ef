#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_drill_copy
short_description: Make a copy of production from its newest backup to drill on, or remove it
version_added: "0.1.0"
description:
  - Restores the newest backup to the end of the archive, below O(path), promotes it, and makes it a small production of
    its own, with a repository below O(path), into which alone it archives, and a first backup there.
  - It listens on a socket below O(path) only. That nothing leads out of it is read back from the running server; one
    that is not isolated is stopped, and the module fails. When it is removed, the timelines in production's archive are
    compared with those from before.
  - Production's server is not asked, and production's repository only read.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - Directory of the copy. All it is and all that is made of it lies below, and is removed with it.
    type: path
    required: true
  state:
    description:
      - V(present) makes it anew, whatever an earlier try of the same O(drill) has left. V(absent) stops every server
        below O(path) and removes all of it.
    type: str
    choices: [present, absent]
    default: present
  drill:
    description:
      - Name of the drill. Where another one has its copy, V(present) fails and touches nothing.
    type: str
    required: true
  superuser:
    description:
      - Name of the superuser in the backup. The default is the operating system user that the module runs as.
    type: str
  bin_dir:
    description:
      - Directory of PostgreSQL's server programs. Without it, the usual places of the backup's major version.
    type: path
  state_path:
    description:
      - Directory with the history of restore tests, which tells how long a restore takes here.
    type: path
    default: /var/lib/dbre-recovery
  timeout:
    description:
      - Seconds that each step may take.
    type: int
    default: 14400
attributes:
  check_mode:
    description: Plans the restore, and refuses what cannot work; nothing is changed.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_drill_damage
notes:
  - Run it as the operating system user that is to own the copy. It need not be able to write production's repository.
"""

EXAMPLES = r"""
- name: Make a copy of production
  dbre.recovery.pgbackrest_drill_copy:
    stanza: main
    path: /var/lib/postgresql/dbre-recovery/drill-main
    drill: drill-20261129T180000Z
  become: true
  become_user: postgres
  register: made

- name: Remove it
  dbre.recovery.pgbackrest_drill_copy:
    stanza: main
    path: /var/lib/postgresql/dbre-recovery/drill-main
    drill: drill-20261129T180000Z
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
drill_copy:
  description:
    - How the copy is reached, of which backup set it is, and in C(isolation) what was read back.
  returned: O(state=present), and not in check mode
  type: dict
  sample:
    bin_dir: /usr/lib/postgresql/15/bin
    config: /var/lib/postgresql/dbre-recovery/drill-main/own.conf
    data_directory: /var/lib/postgresql/dbre-recovery/drill-main/data
    isolation: [{"setting": "archive_mode", "value": "on", "ok": true}]
    path: /var/lib/postgresql/dbre-recovery/drill-main
    port: 40123
    set: 20261129-020004F
    socket: /var/lib/postgresql/dbre-recovery/drill-main/run
    stanza: drill
plan:
  description: What would be restored.
  returned: check mode, O(state=present)
  type: dict
  sample: {"set": {"label": "20261129-020004F"}, "disk": {"needed": 104857600}}
removed:
  description: What proves that it is gone, with all that is not in C(left).
  returned: O(state=absent)
  type: dict
  sample:
    left: []
    path: /var/lib/postgresql/dbre-recovery/drill-main
    repository: {"before": ["00000001"], "after": ["00000001"], "unchanged": true}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._drill.copy import Copy, Wanted, remove
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC, refuse_root
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance


def run(module: AnsibleModule) -> dict[str, Any]:
    wanted = pick(Wanted, module.params)
    copy = Copy(wanted, module.run_command)
    there = SideInstance(wanted.path).read_marker() is not None
    if module.params["state"] == "absent":
        if there:
            copy.refuse_others()
        return {"changed": there, **({} if module.check_mode else {"removed": remove(wanted.path)})}
    if module.check_mode:
        return {"changed": True, "plan": copy.plan()}
    return {"changed": True, "drill_copy": copy.make()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "drill": {"type": "str", "required": True},
            "superuser": {"type": "str"},
            "bin_dir": {"type": "path"},
            "state_path": {"type": "path", "default": "/var/lib/dbre-recovery"},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        refuse_root("restore")
        result = run(module)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
