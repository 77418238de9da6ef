#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore_point_info
short_description: To which moment a restore test should restore
version_added: "0.1.0"
description:
  - Chooses a recovery target from what the repository of a stanza says alone. Production is not asked.
  - The target is a position in WAL. Replay stops before the first record from there on.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  point:
    description:
      - V(latest) is the beginning of the newest WAL segment in the archive. What is in that segment is not replayed, as
        nobody can know its last record before it is read.
      - V(random) is a moment that chance chooses between the end of the oldest backup and there.
    type: str
    choices: [latest, random]
    default: latest
  seed:
    description:
      - Decides what chance chooses, so that a test can be run again. Any text.
    type: str
    default: ""
attributes:
  check_mode:
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_restore
"""

EXAMPLES = r"""
- name: Choose a moment of the window by chance
  dbre.recovery.pgbackrest_restore_point_info:
    stanza: main
    point: random
    seed: "2026-11-29"
  register: chosen
  become: true
  become_user: postgres
"""

RETURN = r"""
target:
  description: The recovery target, as dbre.recovery.pgbackrest_restore takes it.
  returned: success
  type: dict
  sample:
    type: lsn
    value: 0/9A33F10
    exclusive: true
    timeline: 1
    reason: a moment that chance chose between 0/4000100 and 0/C000000, seed 2026-11-29
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import LATEST, RANDOM, restore_point


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "point": {"type": "str", "choices": [LATEST, RANDOM], "default": LATEST},
            "seed": {"type": "str", "default": "", "no_log": False},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        facts = stanza_facts(PgBackRest(module.run_command, **stanza_of(module.params)).info())
        target = restore_point(facts, module.params["point"], module.params["seed"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=False, target=target)


if __name__ == "__main__":
    main()
