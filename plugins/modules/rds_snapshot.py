#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_snapshot
short_description: Take a manual snapshot of an RDS instance or cluster and wait until it is complete
version_added: "0.1.0"
description:
  - Ensures a complete manual snapshot under a name of your own, or that there is none.
  - Waits while the database is busy (a backup, a modification), then until the snapshot is V(available).
  - A snapshot of that name that is still being taken is waited for; one that has failed is deleted and taken anew. A
    complete one of the same database changes nothing. One of another database is an error.
  - Databases are told apart by their resource id, which stays the same when they are renamed.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - DB instance to take the snapshot of. Exactly one of O(db_instance_identifier) and O(db_cluster_identifier).
    type: str
  db_cluster_identifier:
    description:
      - DB cluster (Aurora or Multi-AZ) to take the snapshot of.
    type: str
  resource_id:
    description:
      - Resource id (C(DbiResourceId), C(DbClusterResourceId)) of the database. It is found by this and not by its name,
        so that a task run again after a swap of identifiers still means the same database.
    type: str
  db_snapshot_identifier:
    description:
      - Name of the snapshot.
    type: str
    required: true
  tags:
    description:
      - Tags of the snapshot when it is taken. Those of one that exists stay as they are.
    type: dict
    default: {}
  state:
    description:
      - V(present) ensures a complete snapshot.
      - V(absent) deletes it. Only a snapshot of the named database is deleted.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Reads everything, says whether a snapshot would be taken or deleted, and takes none.
    support: full
  diff_mode:
    description: Shows the status of the snapshot before and after.
    support: full
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_snapshot_copy
"""

EXAMPLES = r"""
- name: Take a snapshot before a migration
  dbre.recovery.rds_snapshot:
    region: eu-central-1
    db_instance_identifier: shop
    db_snapshot_identifier: shop-before-release-42
    tags:
      reason: before release 42

- name: Keep the evidence, whatever the damaged cluster is called by now
  dbre.recovery.rds_snapshot:
    region: eu-central-1
    db_cluster_identifier: shop
    resource_id: cluster-7RSTUVWXYZ2345ABCDEFGH
    db_snapshot_identifier: shop-evidence-incident-7

- name: Remove a snapshot that nobody needs any more
  dbre.recovery.rds_snapshot:
    region: eu-central-1
    db_instance_identifier: shop
    db_snapshot_identifier: shop-before-release-41
    state: absent
"""

RETURN = r"""
snapshot:
  description:
    - The snapshot; with O(state=absent) the one that was deleted. V(null) where there is none.
    - RV(ignore:size_gb) is the storage of the database in GiB.
  returned: success
  type: dict
  sample:
    identifier: shop-before-release-42
    arn: arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before-release-42
    status: available
    type: manual
    source: shop
    resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    copied_from: null
    engine: postgres
    engine_version: "17.6"
    size_gb: 100
    encrypted: true
    kms_key_id: arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555
    time: "2026-11-25T03:12:00+00:00"
    original_time: "2026-11-25T03:12:00+00:00"
    tags: {"reason": "before release 42"}
replaced_failed:
  description: Whether a failed snapshot of that name was deleted first.
  returned: when O(state=present)
  type: bool
  sample: false
seconds:
  description: Seconds from the beginning until the snapshot was complete, waits included.
  returned: when O(state=present)
  type: float
  sample: 184.2
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
    ensure_absent,
    ensure_snapshot,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE, kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    kind, source = kind_of(params["db_instance_identifier"], params["db_cluster_identifier"])
    snapshots = Snapshots(module.rds(), module.waiting(), OF_INSTANCE if kind is INSTANCE else OF_CLUSTER)
    name, resource_id = params["db_snapshot_identifier"], params["resource_id"]
    if params["state"] == "absent":
        return ensure_absent(snapshots, source, name, resource_id, module.check_mode)
    return ensure_snapshot(snapshots, source, name, resource_id, params["tags"], module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "resource_id": {"type": "str"},
            "db_snapshot_identifier": {"type": "str", "required": True},
            "tags": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        run,
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
