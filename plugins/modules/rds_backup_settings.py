#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_backup_settings
short_description: How an RDS instance or cluster keeps automated backups, and that nobody deletes it by mistake
version_added: "0.1.0"
description:
  - Ensures retention and window of the automated backups, protection from deletion, and tags on snapshots.
  - Reads before it writes, and sends AWS only what differs. A setting that is not given stays as it is, and changes of
    others that wait for the maintenance window go on waiting for it.
  - Waits until AWS has applied what was changed.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - DB instance. Exactly one of O(db_instance_identifier) and O(db_cluster_identifier).
      - A member of a cluster is refused, since the cluster keeps the backups of all its members.
    type: str
  db_cluster_identifier:
    description:
      - DB cluster (Aurora or Multi-AZ).
    type: str
  backup_retention_period:
    description:
      - Days that automated backups are kept, from 1 to 35.
    type: int
  allow_shorter_retention:
    description:
      - Whether O(backup_retention_period) may be shorter than it is now. AWS deletes backups beyond it at once.
    type: bool
    default: false
  preferred_backup_window:
    description:
      - When the daily backup begins, V(HH:MM-HH:MM) in UTC, at least 30 minutes.
    type: str
  deletion_protection:
    description:
      - Whether AWS refuses to delete the database.
    type: bool
  copy_tags_to_snapshot:
    description:
      - Whether snapshots get the tags of the database.
    type: bool
attributes:
  check_mode:
    description: Reads everything, says what would be changed and whether that is refused, and changes nothing.
    support: full
  diff_mode:
    description: Shows the settings before and after.
    support: full
  idempotent:
    description: Settings that are as they are to be are not sent.
    support: full
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_backup_replication
  - module: dbre.recovery.rds_restore
  - plugin: dbre.recovery.rds_policy
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Keep two weeks of backups of an instance that cannot be deleted by mistake
  dbre.recovery.rds_backup_settings:
    region: eu-central-1
    db_instance_identifier: shop
    backup_retention_period: 14
    deletion_protection: true

- name: Back an Aurora cluster up at night
  dbre.recovery.rds_backup_settings:
    region: eu-central-1
    db_cluster_identifier: orders
    preferred_backup_window: 01:00-01:30
"""

RETURN = r"""
changes:
  description: Settings that were changed, or would be in check mode, with their new values.
  returned: success
  type: dict
  sample: {"backup_retention_period": 14}
region:
  description: Region that the database is in.
  returned: success
  type: str
  sample: eu-central-1
resource_id:
  description: Resource id of the database (C(DbiResourceId), C(DbClusterResourceId)), which stays through renames.
  returned: success
  type: str
  sample: db-7RSTUVWXYZ2345ABCDEFGH
settings:
  description:
    - What AWS shows of the database, with AWS's own keys; of a cluster with its members below C(Members). Secrets are
      left out, and what changes by itself, such as C(LatestRestorableTime).
    - Stored, it can be given to O(dbre.recovery.rds_restore#module:source_settings) when the region is lost.
  returned: success
  type: dict
  sample: {"DBInstanceIdentifier": "shop", "BackupRetentionPeriod": 14, "DeletionProtection": true, "MultiAZ": true}
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.backup_settings import (
    SETTINGS,
    Settings,
    desired_settings,
    ensure_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    kind, identifier = kind_of(params["db_instance_identifier"], params["db_cluster_identifier"])
    wish = desired_settings(
        **{option: params[option] for option in SETTINGS}, allow_shorter_retention=params["allow_shorter_retention"]
    )
    return ensure_settings(Settings(module.rds(), module.waiting(), kind, identifier), wish, module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "backup_retention_period": {"type": "int"},
            "allow_shorter_retention": {"type": "bool", "default": False},
            "preferred_backup_window": {"type": "str"},
            "deletion_protection": {"type": "bool"},
            "copy_tags_to_snapshot": {"type": "bool"},
        },
        run,
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
