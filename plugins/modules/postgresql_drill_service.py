#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_drill_service
short_description: Run a copy and its standby as units of systemd, or remove these units
version_added: "0.1.0"
description:
  - Starts the servers that M(dbre.recovery.postgresql_drill_standby) has prepared, each by a unit of its own that is
    gone with the next boot, C(dbre-drill-STANZA-primary.service) and C(dbre-drill-STANZA-standby.service). No other
    unit is ever touched.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  state:
    description:
      - V(started) makes and starts both. V(absent) ends what they run, and removes them, also where a failover has
        masked them.
    type: str
    choices: [started, absent]
    default: started
  path:
    description:
      - Directory of the copy.
    type: path
    required: true
  stanza:
    description:
      - Stanza of production, which is in the names of the units.
    type: str
    required: true
  drill:
    description:
      - Name of the drill. Units of another one are refused, and not touched.
    type: str
    required: true
  user:
    description:
      - Operating system user that the servers run as.
    type: str
    default: postgres
attributes:
  check_mode:
    description: Starts and removes nothing, and says whether it would.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.postgresql_drill_standby
notes:
  - Run it as root.
"""

EXAMPLES = r"""
- name: Start the copy and its standby
  dbre.recovery.postgresql_drill_service:
    path: /var/lib/postgresql/dbre-recovery/drill-main
    stanza: main
    drill: drill-20261129T180000Z
  become: true
"""

RETURN = r"""
services:
  description: The units, by what they ran when the drill began.
  returned: O(state=started)
  type: dict
  sample: {primary: dbre-drill-main-primary.service, standby: dbre-drill-main-standby.service}
left:
  description: What is left of them.
  returned: O(state=absent)
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill.service import Services


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "absent"], "default": "started"},
            "path": {"type": "path", "required": True},
            "stanza": {"type": "str", "required": True},
            "drill": {"type": "str", "required": True},
            "user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        services = Services(params["path"], params["stanza"], params["drill"])
        if params["state"] == "absent":
            result = services.remove(module.check_mode)
        else:
            result = {"changed": True} if module.check_mode else services.start(params["user"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except (KeyError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
