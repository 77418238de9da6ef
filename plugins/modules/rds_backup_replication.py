#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_backup_replication
short_description: Replicate the automated backups of an RDS instance into another region
version_added: "0.1.0"
description:
  - Ensures that automated backups of a DB instance (snapshots and transaction logs) are replicated into O(region), from
    which the instance can be restored to a moment when its own region is lost. Waits until AWS replicates.
  - AWS can only start and stop a replication. Another O(backup_retention_period) therefore stops and starts it, after
    which it is checked that nothing replicated before is gone. Another KMS key is refused, since it would need the
    replicated backups to be deleted. This module deletes none, ever; V(absent) stops the replication, and what was
    replicated is retained until its retention has passed.
  - AWS does this for single instances only (Multi-AZ instances included), not for Aurora or Multi-AZ clusters. Copy
    their snapshots with M(dbre.recovery.rds_snapshot_copy).
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - DB instance in O(source_region) whose backups are replicated.
    type: str
    required: true
  source_region:
    description:
      - Region of the DB instance. O(region) is where the backups go.
    type: str
    required: true
  backup_retention_period:
    description:
      - Days that replicated backups are kept, 1 to 35. By default as it is, and AWS's default (7) for a new one.
    type: int
  kms_key_id:
    description:
      - KMS key of O(region) for the replicated backups, needed where the instance is encrypted. By default that of the
        backups which are there already.
      - An alias is not compared with the key of replicated backups that exist.
    type: str
  tags:
    description:
      - Tags of the replicated backups when the replication is started.
    type: dict
    default: {}
  state:
    description:
      - V(present) ensures a replication that runs.
      - V(absent) stops it, also when the source or its region is gone.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Reads and checks everything, says whether a replication would be started or stopped, and does neither.
    support: full
  diff_mode:
    description: Shows status and retention before and after.
    support: full
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_snapshot_copy
  - module: dbre.recovery.rds_recovery_window_info
"""

EXAMPLES = r"""
- name: Survive the loss of the region
  dbre.recovery.rds_backup_replication:
    region: eu-west-1
    source_region: eu-central-1
    db_instance_identifier: shop
    backup_retention_period: 14
    kms_key_id: arn:aws:kms:eu-west-1:123456789012:key/99999999-8888-7777-6666-555555555555

- name: Stop replicating, and keep what is there until its retention has passed
  dbre.recovery.rds_backup_replication:
    region: eu-west-1
    source_region: eu-central-1
    db_instance_identifier: shop-damaged
    state: absent
"""

RETURN = r"""
replication:
  description:
    - The replication as it runs now; with V(absent) the one that was stopped. V(null) where there is none.
    - RV(ignore:retention) in days. RV(ignore:window) is V(null) at both ends until enough was replicated to restore.
  returned: success
  type: dict
  sample:
    arn: arn:aws:rds:eu-west-1:123456789012:auto-backup:ab-abcdefghijklmnopqrstuvwx
    status: replicating
    source_arn: arn:aws:rds:eu-central-1:123456789012:db:shop
    resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    retention: 14
    encrypted: true
    kms_key_id: arn:aws:kms:eu-west-1:123456789012:key/99999999-8888-7777-6666-555555555555
    window:
      earliest: "2026-11-11T03:12:00+00:00"
      latest: "2026-11-25T03:07:00+00:00"
restarted:
  description: Whether the replication was, or would be, stopped and started for another retention.
  returned: success
  type: bool
  sample: false
retained:
  description: Backups of replications of the same database that were stopped, like RV(replication).
  returned: success
  type: list
  elements: dict
  sample: []
seconds:
  description: Seconds until it was replicating, or stopped.
  returned: success
  type: float
  sample: 903.4
lost:
  description: What was replicated before the replication was started anew and is not there any more.
  returned: on failure because of it
  type: dict
  sample: {"arn": "arn:aws:rds:eu-west-1:123456789012:auto-backup:ab-abcdefghijklmnopqrstuvwx"}
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.replication import (
    DesiredSettings,
    Replication,
    ensure_replicated,
    ensure_stopped,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    absent = params["state"] == "absent"
    source = module.rds(params["source_region"], patient=not absent)
    replication = Replication(source, module.rds(), module.waiting(), params["db_instance_identifier"])
    if absent:
        return ensure_stopped(replication, module.check_mode)
    wish = DesiredSettings(params["backup_retention_period"], params["kms_key_id"], params["tags"])
    return ensure_replicated(replication, wish, module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_instance_identifier": {"type": "str", "required": True},
            "source_region": {"type": "str", "required": True},
            "backup_retention_period": {"type": "int"},
            "kms_key_id": {"type": "str"},
            "tags": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        run,
    )


if __name__ == "__main__":
    main()
