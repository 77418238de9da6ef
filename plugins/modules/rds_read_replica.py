#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_read_replica
short_description: Have a read replica again after another instance took its source's name
version_added: "0.1.0"
description:
  - After M(dbre.recovery.rds_identifier_swap) read replicas stay with the instance that was renamed. This module gives
    such a replica another name, and makes a new one with its old name and its settings, of the instance that serves.
  - A replica of that instance that was put aside by this module before gets its name back instead. That is how a
    takeover is undone.
  - Killed and run again, it goes on.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - Name of the replica.
    type: str
    required: true
  source_db_instance_identifier:
    description:
      - The instance to replicate.
    type: str
    required: true
  kept_identifier:
    description:
      - Name for a replica of another instance that has the name now. It goes on replicating what it replicates.
    type: str
    required: true
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Tells the steps.
    support: none
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_identifier_swap
"""

EXAMPLES = r"""
- name: Have the replica again, of the database that serves now
  dbre.recovery.rds_read_replica:
    db_instance_identifier: shop-read
    source_db_instance_identifier: shop
    kept_identifier: shop-read-before-incident-7
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [shop-read renamed to shop-read-before-incident-7, "shop-read made, a replica of shop"]
instance:
  description: The replica, as M(amazon.aws.rds_instance_info) returns it. Empty in check mode when it would be made.
  returned: success
  type: dict
  sample: {"db_instance_identifier": "shop-read", "read_replica_source_db_instance_identifier": "shop"}
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import (
    WAIT,
    RdsModule,
    facts,
    plain,
    run_module,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.replica import Replica


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    result = Replica(
        module.rds(),
        module.waiting(),
        params["db_instance_identifier"],
        params["source_db_instance_identifier"],
        params["kept_identifier"],
        module.check_mode,
    ).run()
    result["instance"] = facts(result["instance"]) if result["instance"] else {}
    return dict(plain(result))


def main() -> None:
    run_module(
        {
            "db_instance_identifier": {"type": "str", "required": True},
            "source_db_instance_identifier": {"type": "str", "required": True},
            "kept_identifier": {"type": "str", "required": True},
            **WAIT,
        },
        run,
    )


if __name__ == "__main__":
    main()
