#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_snapshot_copy
short_description: Copy an RDS snapshot, into this region from another or under another name
version_added: "0.1.0"
description:
  - Ensures a complete copy of a snapshot in O(region). A copy in another region is what survives the loss of one.
  - Waits for a source that is still being taken, for other copies of the account that keep this one from beginning
    (AWS copies only so many into a region at a time), and until the copy is V(available).
  - A copy of that name that is under way is waited for; one that has failed is deleted and made anew. A complete copy
    of the same source changes nothing, also when the source or its region is gone. Anything else of that name is an
    error.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_snapshot_identifier:
    description:
      - Snapshot of a DB instance to copy, by name or ARN, automated (C(rds:shop-2026-11-25-03-12)) or manual.
      - Exactly one of O(db_snapshot_identifier) and O(db_cluster_snapshot_identifier).
    type: str
  db_cluster_snapshot_identifier:
    description:
      - Snapshot of a DB cluster to copy, by name or ARN.
    type: str
  source_region:
    description:
      - Region of the source, where it is given by name. An ARN says it itself. The default is O(region).
    type: str
  copy_identifier:
    description:
      - Name of the copy. The default is the source's name without C(rds:), which needs another region.
    type: str
  kms_key_id:
    description:
      - KMS key that encrypts the copy, a key of O(region). An encrypted source in another region needs one.
      - Without it a copy within the region has the key of its source.
    type: str
  copy_tags:
    description:
      - Whether the copy gets the tags of its source. O(tags) come on top of them.
    type: bool
    default: true
  tags:
    description:
      - Tags of the copy when it is made. Those of one that exists stay as they are.
    type: dict
    default: {}
  option_group_name:
    description:
      - Option group in O(region) for the copy of an instance's snapshot.
    type: str
attributes:
  check_mode:
    description: Reads everything, says whether a copy would be made and whether AWS could make it, and makes none.
    support: full
  diff_mode:
    description: Shows the status of the copy before and after.
    support: full
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
seealso:
  - module: dbre.recovery.rds_snapshot
  - module: dbre.recovery.rds_backup_replication
"""

EXAMPLES = r"""
- name: Keep last night's backup in another region
  dbre.recovery.rds_snapshot_copy:
    region: eu-west-1
    source_region: eu-central-1
    db_snapshot_identifier: rds:shop-2026-11-25-03-12
    kms_key_id: arn:aws:kms:eu-west-1:123456789012:key/99999999-8888-7777-6666-555555555555

- name: Copy a cluster's snapshot by ARN
  dbre.recovery.rds_snapshot_copy:
    region: eu-west-1
    db_cluster_snapshot_identifier: arn:aws:rds:eu-central-1:123456789012:cluster-snapshot:shop-before-release-42
    kms_key_id: alias/backups
    tags:
      expires: "2027-01-01"
"""

RETURN = r"""
snapshot:
  description:
    - The copy, V(null) in check mode when one would be made. RV(ignore:copied_from) is the ARN of the source where that
      is in another region, RV(ignore:size_gb) the storage of the database in GiB.
    - RV(ignore:time) is when it was copied, RV(ignore:original_time) the moment of its data. Of cluster snapshots AWS
      tells only the first, which both show then.
  returned: success
  type: dict
  sample:
    identifier: shop-2026-11-25-03-12
    arn: arn:aws:rds:eu-west-1:123456789012:snapshot:shop-2026-11-25-03-12
    status: available
    type: manual
    source: shop
    resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    copied_from: arn:aws:rds:eu-central-1:123456789012:snapshot:rds:shop-2026-11-25-03-12
    engine: postgres
    engine_version: "17.6"
    size_gb: 100
    encrypted: true
    kms_key_id: arn:aws:kms:eu-west-1:123456789012:key/99999999-8888-7777-6666-555555555555
    time: "2026-11-25T04:00:07+00:00"
    original_time: "2026-11-25T03:12:00+00:00"
    tags: {}
source:
  description: Name and region of the source.
  returned: success
  type: dict
  sample: {"identifier": "rds:shop-2026-11-25-03-12", "region": "eu-central-1"}
replaced_failed:
  description: Whether a failed copy of that name was deleted first.
  returned: success
  type: bool
  sample: false
seconds:
  description: Seconds from the beginning until the copy was complete, waits included.
  returned: success
  type: float
  sample: 742.8
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.copies import (
    Copying,
    DesiredSettings,
    default_name,
    ensure_copy,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module


def run(module: RdsModule) -> dict[str, Any]:
    params = module.params
    here = module.rds()
    kind = OF_INSTANCE if params[OF_INSTANCE.option] else OF_CLUSTER
    source = source_of(kind, params[kind.option], params["source_region"], here.region)
    wish = DesiredSettings(
        identifier=params["copy_identifier"] or default_name(source, here.region),
        kms_key_id=params["kms_key_id"],
        tags=params["tags"],
        copy_tags=params["copy_tags"],
        option_group_name=params["option_group_name"],
    )
    copies = Snapshots(here, module.waiting(), source.kind)
    return ensure_copy(Copying(module.rds(source.region), copies, source, wish), module.check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "db_snapshot_identifier": {"type": "str"},
            "db_cluster_snapshot_identifier": {"type": "str"},
            "source_region": {"type": "str"},
            "copy_identifier": {"type": "str"},
            "kms_key_id": {"type": "str"},
            "copy_tags": {"type": "bool", "default": True},
            "tags": {"type": "dict", "default": {}},
            "option_group_name": {"type": "str"},
        },
        run,
        mutually_exclusive=[("db_snapshot_identifier", "db_cluster_snapshot_identifier")],
        required_one_of=[("db_snapshot_identifier", "db_cluster_snapshot_identifier")],
    )


if __name__ == "__main__":
    main()
