#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_recovery_window_info
short_description: To which moments an RDS instance or cluster can be restored, and from which snapshots
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Looks in each region for automated backups (also replicated ones, and retained ones of a database that is gone) and
    for snapshots.
  - A region that cannot be reached is reported as that and is no error, since a lost region may be why somebody asks.
attributes:
  action_group:
    description: Use C(group/dbre.recovery.rds) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.rds
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  db_instance_identifier:
    description:
      - The instance.
    type: str
  db_cluster_identifier:
    description:
      - The cluster, Aurora or Multi-AZ.
    type: str
  regions:
    description:
      - Regions to look in beside O(region).
    type: list
    elements: str
    default: []
  at:
    description:
      - A moment that must be restorable, in ISO 8601 with a UTC offset. The module fails when no region can restore it,
        and names the nearest moment that can be and the last snapshot before.
    type: str
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: dbre.recovery.rds_restore
"""

EXAMPLES = r"""
- name: See what the instance shop can be restored to
  dbre.recovery.rds_recovery_window_info:
    db_instance_identifier: shop
    regions: [eu-west-1]

- name: Fail unless a moment can be restored
  dbre.recovery.rds_recovery_window_info:
    db_cluster_identifier: orders
    at: "2026-11-25T03:11:59+00:00"
"""

RETURN = r"""
exists:
  description: Whether the database is there, in O(region). Null when that region cannot be reached.
  returned: success
  type: bool
  sample: true
resource_id:
  description: Its resource ID. Null when it is not there.
  returned: success
  type: str
  sample: db-ZYXWVUTSRQPONMLKJIHGFEDCBA
settings:
  description:
    - What AWS shows of it, with AWS's own keys; of a cluster with its members below C(Members). Stored, it can be given
      to M(dbre.recovery.rds_restore) when the database is gone. Empty when it is not there.
  returned: success
  type: dict
  sample: {"DBInstanceIdentifier": "shop", "MultiAZ": true}
windows:
  description: What can be restored, one entry for each set of automated backups.
  returned: success
  type: list
  elements: dict
  contains:
    region:
      description:
        - Region that the backups are kept in.
      type: str
    kind:
      description:
        - V(automated) for those of a database that is there, V(replicated) for a copy in another region, V(retained)
          for those of one that is gone.
      type: str
    identifier:
      description:
        - Name of the database.
      type: str
    resource_id:
      description:
        - Resource ID of the database.
      type: str
    earliest:
      description:
        - Earliest moment; null when AWS does not tell.
      type: str
    latest:
      description:
        - Latest moment; null when the first backup is not finished.
      type: str
    arn:
      description:
        - ARN of the backups; null when AWS does not tell.
      type: str
    status:
      description:
        - Status of the backups in AWS's words.
      type: str
    retention_period:
      description:
        - Days that they are kept.
      type: int
    encrypted:
      description:
        - Whether they are encrypted.
      type: bool
    kms_key_id:
      description:
        - Their KMS key.
      type: str
  sample:
    - region: eu-central-1
      kind: automated
      identifier: shop
      resource_id: db-ZYXWVUTSRQPONMLKJIHGFEDCBA
      earliest: "2026-11-18T04:03:00+00:00"
      latest: "2026-11-25T03:20:00+00:00"
      arn: arn:aws:rds:eu-central-1:123456789012:auto-backup:ab-l2ijcexjp7xq7hoj4siexample
      status: active
      retention_period: 7
      encrypted: true
      kms_key_id: arn:aws:kms:eu-central-1:123456789012:key/0f3e1e0c-2f4b-4c7d-9c53-3e2b9b9d7c11
snapshots:
  description: Snapshots in all regions, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    region:
      description:
        - Region that it is kept in.
      type: str
    identifier:
      description:
        - Name.
      type: str
    arn:
      description:
        - ARN.
      type: str
    kind:
      description:
        - V(instance) or V(cluster).
      type: str
    source:
      description:
        - Name that the database had.
      type: str
    resource_id:
      description:
        - Resource ID of the database.
      type: str
    type:
      description:
        - V(manual), V(automated) or V(awsbackup).
      type: str
    copied_from:
      description:
        - The snapshot that it is a copy of; null for an original.
      type: str
    source_region:
      description:
        - Region of the database.
      type: str
    status:
      description:
        - Status in AWS's words; only V(available) ones can be restored.
      type: str
    created:
      description:
        - When it was made, or copied.
      type: str
    time:
      description:
        - How new what it holds is.
      type: str
    age:
      description:
        - Seconds since RV(snapshots[].time).
      type: int
    size:
      description:
        - Bytes of data; null when AWS does not tell (clusters).
      type: int
    allocated_storage:
      description:
        - GiB of storage that the database had.
      type: int
    encrypted:
      description:
        - Whether it is encrypted.
      type: bool
    kms_key_id:
      description:
        - Its KMS key.
      type: str
    engine:
      description:
        - Engine.
      type: str
    engine_version:
      description:
        - Version of the engine.
      type: str
    tags:
      description:
        - Tags.
      type: dict
  sample:
    - region: eu-central-1
      identifier: shop-before-release
      arn: arn:aws:rds:eu-central-1:123456789012:snapshot:shop-before-release
      kind: instance
      source: shop
      resource_id: db-ZYXWVUTSRQPONMLKJIHGFEDCBA
      type: manual
      copied_from: null
      source_region: eu-central-1
      status: available
      created: "2026-11-24T20:00:12+00:00"
      time: "2026-11-24T20:00:12+00:00"
      age: 26400
      size: 4398046511
      allocated_storage: 20
      encrypted: true
      kms_key_id: arn:aws:kms:eu-central-1:123456789012:key/0f3e1e0c-2f4b-4c7d-9c53-3e2b9b9d7c11
      engine: postgres
      engine_version: "17.6"
      tags: {"why": "before release"}
regions:
  description: For each region that was looked in, whether it could be reached, and if not, why.
  returned: success
  type: dict
  sample: {"eu-central-1": {"reachable": true, "error": null}}
able:
  description: The windows that hold O(at), those in the database's own region first.
  returned: success, when O(at) is given
  type: list
  elements: dict
  sample: []
"""

from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RdsModule, plain, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.recovery_window import recovery_window


def info(module: RdsModule) -> dict[str, Any]:
    home = module.rds(patient=False)
    params = module.params
    others = [module.rds(region, patient=False) for region in params["regions"]]
    kind, name = kind_of(params["db_instance_identifier"], params["db_cluster_identifier"])
    at = parse_time(params["at"], "at") if params["at"] else None
    return dict(plain(recovery_window(kind, name, home, others, datetime.now(timezone.utc), at)))


def main() -> None:
    run_module(
        {
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "regions": {"type": "list", "elements": "str", "default": []},
            "at": {"type": "str"},
        },
        info,
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
