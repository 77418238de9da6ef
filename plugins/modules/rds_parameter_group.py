#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_parameter_group
short_description: Ensure an RDS parameter group that is a copy of another with some parameters changed
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Copies a parameter group, or makes a new one of a family, and changes parameters in it.
  - Meant for copies of a database that must not do what production does; O(isolate) knows which parameters that takes.
    M(amazon.aws.rds_instance_param_group) copies none, and gives static and dynamic parameters one apply method.
  - What was changed is read back until AWS shows it, since an instance that is made before would start without it.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns parameters before and after, when in diff mode.
    support: full
options:
  name:
    description:
      - Name of the parameter group.
    type: str
    required: true
  kind:
    description:
      - Whether it is for instances or for clusters (Aurora, Multi-AZ).
    type: str
    choices: [instance, cluster]
    default: instance
  state:
    description:
      - V(absent) deletes it, which AWS refuses as long as something uses it. It is asked again for five minutes, since
        a database that is gone or has another group counts as a user of it for a while.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - The parameter group to copy. A group that is there already gets the values that were set in this one.
      - AWS's own groups (C(default.postgres17)) can be given too.
    type: str
  family:
    description:
      - Family of a new group with default values, such as V(postgres17), where there is no O(source).
    type: str
  isolate:
    description:
      - Whether to change what would bring production's work to life in a copy. No subscription gets a worker
        (C(max_logical_replication_workers=0)), and libraries whose workers act by themselves (C(pg_cron),
        C(pg_partman_bgw), C(pglogical), C(pgactive)) are not loaded.
      - A group that is there must have been made with this option, so that nothing of production's is changed.
    type: bool
    default: false
  parameters:
    description:
      - Parameters to change, in the units that RDS has them in. Others stay as they are.
    type: dict
    default: {}
  description:
    description:
      - Description of a new group.
    type: str
  tags:
    description:
      - Tags to set. Others stay.
    type: dict
    default: {}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_restore
"""

EXAMPLES = r"""
- name: Have a parameter group for isolated copies of an instance that uses shop-17
  dbre.recovery.rds_parameter_group:
    name: shop-17-isolated
    source: shop-17
    isolate: true
    parameters:
      autovacuum: false

- name: Remove it
  dbre.recovery.rds_parameter_group:
    name: shop-17-isolated
    state: absent
"""

RETURN = r"""
name:
  description: Name of the parameter group.
  returned: success
  type: str
  sample: shop-17-isolated
arn:
  description: Its ARN.
  returned: O(state=present), outside of check mode
  type: str
  sample: arn:aws:rds:eu-central-1:123456789012:pg:shop-17-isolated
family:
  description: Its family.
  returned: O(state=present)
  type: str
  sample: postgres17
created:
  description: Whether it was made, or in check mode would be.
  returned: O(state=present)
  type: bool
  sample: true
parameters:
  description: Parameters that were changed, with their new values.
  returned: O(state=present)
  type: dict
  sample: {"max_logical_replication_workers": "0"}
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.parameter_group import ParameterGroup, Wanted


def group(module: RdsModule) -> dict[str, Any]:
    params = module.params
    one = ParameterGroup(params["kind"], params["name"], module.rds(), module.waiting(), module.check_mode)
    if params["state"] == "absent":
        return one.absent()
    return one.present(pick(Wanted, params))


def main() -> None:
    run_module(
        {
            "name": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["instance", "cluster"], "default": "instance"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "str"},
            "family": {"type": "str"},
            "isolate": {"type": "bool", "default": False},
            "parameters": {"type": "dict", "default": {}},
            "description": {"type": "str"},
            "tags": {"type": "dict", "default": {}},
            **WAIT,
        },
        group,
        mutually_exclusive=[("source", "family")],
        required_if=[("state", "present", ["source", "family"], True), ("isolate", True, ["source"])],
    )


if __name__ == "__main__":
    main()
