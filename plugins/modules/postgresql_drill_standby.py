#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_drill_standby
short_description: Give a copy that is drilled on a standby of its own
version_added: "0.1.0"
description:
  - Stops the copy that M(dbre.recovery.pgbackrest_drill_copy) made at O(path), restores a standby from its own
    repository below the same directory, and leaves both to be started by M(dbre.recovery.postgresql_drill_service).
  - The standby streams by the copy's socket, and once promoted archives into the copy's repository. Both listen on
    sockets below O(path) only.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
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
  timeout:
    description:
      - Seconds that the restore may take.
    type: int
    default: 14400
attributes:
  check_mode:
    description: There is no copy in check mode, so that it can have no standby.
    support: none
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.pgbackrest_drill_copy
  - module: dbre.recovery.postgresql_drill_service
"""

EXAMPLES = r"""
- name: Give the copy a standby
  dbre.recovery.postgresql_drill_standby:
    path: /var/lib/postgresql/dbre-recovery/drill-main
    stanza: main
  become: true
  become_user: postgres
"""

RETURN = r"""
drill_pair:
  description: The unit of the copy, and how its standby is reached, to be combined with that of the copy.
  returned: success
  type: dict
  sample:
    failover_path: /var/lib/postgresql/dbre-recovery/drill-main/failover
    service: dbre-drill-main-primary.service
    standby:
      data_directory: /var/lib/postgresql/dbre-recovery/drill-main/standby/data
      port: 40124
      service: dbre-drill-main-standby.service
      socket: /var/lib/postgresql/dbre-recovery/drill-main/standby/run
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill.pair import Pair


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "stanza": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 14400},
        },
    )
    params = module.params
    try:
        pair = Pair(params["path"]).prepare(params["stanza"], params["timeout"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, drill_pair=pair)


if __name__ == "__main__":
    main()
