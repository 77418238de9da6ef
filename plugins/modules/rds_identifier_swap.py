#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_identifier_swap
short_description: Give a restored RDS database production's name and keep the old one under another
version_added: "0.1.0"
description:
  - Renames production to O(kept_identifier), then the restored database to production's identifier, so that
    applications reach it at the address they know. Nothing is deleted; the old database gets deletion protection, the
    new one the deletion protection that production had.
  - Both must be available, have no modifications pending (a rename would apply them) and the name for the old one must
    be free, or nothing is changed.
  - After each rename it waits until the database, found by its resource id, is available under its new name.
  - With O(resource_id) and O(replacement_resource_id) it goes on where a killed run stopped, and a second run changes
    nothing.
  - When AWS does not accept the second rename within ten minutes the first one is turned back, and the module fails.
  - To turn a swap back, call the module with the arguments that it returned as RV(undo).
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - Identifier of production, a DB instance. Exactly one of O(db_instance_identifier) and
        O(db_cluster_identifier).
    type: str
  db_cluster_identifier:
    description:
      - Identifier of production, a DB cluster (Aurora or Multi-AZ).
      - Instances of a cluster keep their names and endpoints; RV(instance_endpoints) and RV(notes) say which.
    type: str
  replacement_identifier:
    description:
      - Identifier of the restored database before the swap.
    type: str
    required: true
  kept_identifier:
    description:
      - Identifier that the old database is kept under.
    type: str
    required: true
  resource_id:
    description:
      - Resource id (C(DbiResourceId), C(DbClusterResourceId)) of the database that is production before the swap.
      - Needed to go on after a run was killed, and to run twice.
    type: str
  replacement_resource_id:
    description:
      - Resource id of the restored database.
    type: str
attributes:
  check_mode:
    description: Reads and checks everything, says in RV(plan) what is left to do, and renames nothing.
    support: full
  diff_mode:
    description: RV(plan) says what changes.
    support: none
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
notes:
  - The old name stops resolving at once, and the new one may need up to ten minutes to resolve everywhere.
    RV(outage_seconds) ends when AWS says that the database is available; test a connection after it.
  - Read replicas stay with the old database and are named in RV(replicas_left).
seealso:
  - module: dbre.recovery.rds_restore
"""

EXAMPLES = r"""
- name: Put the restored database in production's place
  dbre.recovery.rds_identifier_swap:
    region: eu-central-1
    db_instance_identifier: shop
    replacement_identifier: shop-restored
    kept_identifier: shop-damaged
    resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    replacement_resource_id: db-ABCDEFGHIJKLMNOPQRSTUV
  register: swap

- name: Turn it back
  dbre.recovery.rds_identifier_swap:
    region: eu-central-1
    db_instance_identifier: "{{ swap.undo.db_instance_identifier }}"
    replacement_identifier: "{{ swap.undo.replacement_identifier }}"
    kept_identifier: "{{ swap.undo.kept_identifier }}"
    resource_id: "{{ swap.undo.resource_id }}"
    replacement_resource_id: "{{ swap.undo.replacement_resource_id }}"
"""

RETURN = r"""
plan:
  description: What was left to do when the module began, in words. Empty when the swap was done.
  returned: success
  type: list
  elements: str
  sample:
    - shop (db-7RSTUVWXYZ2345ABCDEFGH) becomes shop-damaged
    - shop-restored (db-ABCDEFGHIJKLMNOPQRSTUV) becomes shop
    - deletion protection of shop-damaged on
renamed:
  description: How many of the two renames are done or under way. Outside of check mode always 2.
  returned: success
  type: int
  sample: 2
steps:
  description: What was done, with the seconds each step took. C(changed) is false for one that was done already.
  returned: always, when something was begun
  type: list
  elements: dict
  sample:
    - step: shop renamed to shop-damaged
      changed: true
      seconds: 71.3
outage_seconds:
  description:
    - Seconds from the first rename until the new database was available under production's name.
    - V(null) when the first rename was made by an earlier run, whose clock is not known, and in check mode.
  returned: success
  type: float
  sample: 148.9
production:
  description: The database that has production's name now.
  returned: success, outside of check mode
  type: dict
  sample:
    identifier: shop
    resource_id: db-ABCDEFGHIJKLMNOPQRSTUV
    arn: arn:aws:rds:eu-central-1:123456789012:db:shop
    status: available
    host: shop.abcdefghijkl.eu-central-1.rds.amazonaws.com
    port: 5432
    deletion_protection: true
kept:
  description: The old database, like RV(production).
  returned: success, outside of check mode
  type: dict
  sample: {"identifier": "shop-damaged", "resource_id": "db-7RSTUVWXYZ2345ABCDEFGH", "deletion_protection": true}
undo:
  description: Arguments of this module that turn the swap back.
  returned: success
  type: dict
  sample:
    db_instance_identifier: shop
    replacement_identifier: shop-damaged
    kept_identifier: shop-restored
    resource_id: db-ABCDEFGHIJKLMNOPQRSTUV
    replacement_resource_id: db-7RSTUVWXYZ2345ABCDEFGH
replicas_left:
  description: Read replicas that stay with the old database.
  returned: success
  type: list
  elements: str
  sample: [shop-replica-1]
instance_endpoints:
  description: Instances of the cluster that is production and of the one that is kept. Their endpoints do not move.
  returned: success
  type: dict
  sample: {"production": ["shop-restored-1"], "kept": ["shop-1", "shop-2"]}
custom_endpoints:
  description: Custom endpoints of the old Aurora cluster, which stay with it.
  returned: success
  type: list
  elements: str
  sample: []
proxies:
  description: RDS Proxies with production's identifier among their targets; V(null) when AWS does not let these
    credentials ask.
  returned: success
  type: list
  elements: str
  sample: []
notes:
  description: What a person has to do or to know beside the swap.
  returned: success
  type: list
  elements: str
  sample: []
events:
  description: AWS's own events of the last hour. AWS may send them late or not at all.
  returned: success, outside of check mode
  type: list
  elements: dict
  sample: []
undone:
  description: Whether the first rename was turned back after the second one was refused.
  returned: on failure of the second rename
  type: bool
  sample: true
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.swap import Names, Swap, ensure_swap


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    kind, production = kind_of(params["db_instance_identifier"], params["db_cluster_identifier"])
    names = Names(production, params["replacement_identifier"], params["kept_identifier"])
    ids = (params["resource_id"], params["replacement_resource_id"])
    return ensure_swap(Swap(module.rds(), module.waiting(), kind, names, *ids), module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "replacement_identifier": {"type": "str", "required": True},
            "kept_identifier": {"type": "str", "required": True},
            "resource_id": {"type": "str"},
            "replacement_resource_id": {"type": "str"},
        },
        run,
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
        required_together=[("resource_id", "replacement_resource_id")],
    )


if __name__ == "__main__":
    main()
