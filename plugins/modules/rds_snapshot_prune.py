#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_snapshot_prune
short_description: Delete old manual snapshots of an RDS instance or cluster, never the last good one
version_added: "0.1.0"
description:
  - Deletes manual snapshots in O(region), copies from other regions included, that are of one database, carry all
    O(tags), and are beyond O(keep_count) or older than O(max_age). Those that have failed and carry the tags go too.
  - Never deletes the newest good one that carries the tags, one that is still being taken, an automated one, or one of
    another database.
  - Databases are told apart by their resource id, which copies keep and renames do not change.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - DB instance whose snapshots are pruned. Exactly one of O(db_instance_identifier) and O(db_cluster_identifier).
    type: str
  db_cluster_identifier:
    description:
      - DB cluster (Aurora or Multi-AZ) whose snapshots are pruned.
    type: str
  source_resource_id:
    description:
      - Resource id (C(DbiResourceId), C(DbClusterResourceId)) of the database. Needed where the database is not in
        O(region), as for copies in another one.
    type: str
  tags:
    description:
      - Tags that a snapshot must carry, all of them, to be counted and pruned.
    type: dict
    required: true
  keep_count:
    description:
      - How many good ones are kept, the newest. At least one of O(keep_count) and O(max_age); with both, what is beyond
        either goes.
    type: int
  max_age:
    description:
      - How old a good one may be, in seconds or as a number with V(s), V(m), V(h), V(d) or V(w). A copy of an
        instance's snapshot is as old as what it was copied from.
    type: str
attributes:
  check_mode:
    description: Says what would be deleted, and deletes nothing.
    support: full
  diff_mode:
    description: Shows the names of the snapshots before and after.
    support: full
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_snapshot
  - module: dbre.recovery.rds_snapshot_copy
"""

EXAMPLES = r"""
- name: Keep a month of the snapshots that were taken before releases
  dbre.recovery.rds_snapshot_prune:
    region: eu-central-1
    db_instance_identifier: shop
    tags:
      reason: release
    max_age: 30d

- name: Keep the four newest copies in another region
  dbre.recovery.rds_snapshot_prune:
    region: eu-west-1
    db_instance_identifier: shop
    source_resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    tags:
      purpose: copy
    keep_count: 4
"""

RETURN = r"""
deleted:
  description: Snapshots that were deleted, or would be in check mode, and why. C(age) is in seconds.
  returned: success
  type: list
  elements: dict
  sample:
    - identifier: shop-before-release-41
      arn: arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before-release-41
      status: available
      time: "2026-10-01T03:12:00+00:00"
      age: 4752000
      reason: it is 4752000 s old, older than 2592000 s
kept:
  description: Manual snapshots of the database that stay, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - identifier: shop-before-release-42
      arn: arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before-release-42
      status: available
      time: "2026-11-25T03:12:00+00:00"
      age: 86400
      reason: it is the newest good one
resource_id:
  description: Resource id of the database.
  returned: success
  type: str
  sample: db-7RSTUVWXYZ2345ABCDEFGH
"""

from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.prune import (
    Rule,
    ensure_pruned,
    source_resource_id,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE, kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    if not params["tags"]:
        raise RecoveryError("tags is empty, and would mean every snapshot. Nothing was deleted. Give at least one tag.")
    if params["keep_count"] is not None and params["keep_count"] < 1:
        raise RecoveryError(
            f"keep_count {params['keep_count']} would keep none, and the newest good one always stays. Nothing was "
            "deleted. Give 1 or more."
        )
    kind, identifier = kind_of(params["db_instance_identifier"], params["db_cluster_identifier"])
    snapshots = Snapshots(module.rds(), module.waiting(), OF_INSTANCE if kind is INSTANCE else OF_CLUSTER)
    rule = Rule(
        source_resource_id(snapshots.rds, snapshots.kind, identifier, params["source_resource_id"]),
        {str(key): str(text) for key, text in params["tags"].items()},
        params["keep_count"],
        None if params["max_age"] is None else parse_age(params["max_age"]),
    )
    return ensure_pruned(snapshots, rule, lambda: datetime.now(timezone.utc), module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "source_resource_id": {"type": "str"},
            "tags": {"type": "dict", "required": True},
            "keep_count": {"type": "int"},
            "max_age": {"type": "str"},
        },
        run,
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
        required_one_of=[("db_instance_identifier", "db_cluster_identifier"), ("keep_count", "max_age")],
    )


if __name__ == "__main__":
    main()
