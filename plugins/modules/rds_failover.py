#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_failover
short_description: Fail over an RDS instance or cluster, or promote a read replica, and prove it
version_added: "0.1.0"
description:
  - Fails a Multi-AZ DB instance over to its other zone, lets another member of a DB cluster (Aurora or Multi-AZ) write,
    or makes a read replica a database of its own.
  - What AWS would refuse, or accept and not do, is refused before the call. A failover counts only when the zone or the
    writer has really changed and the database is available again; without that proof within O(wait_timeout) the module
    fails. The seconds from the call to the proof are measured.
  - Give what failed (O(from_az), O(writer_not), O(replica_of)) as it was when the incident was planned. Then a second
    run, or one after AWS has failed over by itself, changes nothing instead of failing over back.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  db_instance_identifier:
    description:
      - Multi-AZ DB instance to fail over. Exactly one of O(db_instance_identifier), O(db_cluster_identifier) and
        O(promote).
    type: str
  db_cluster_identifier:
    description:
      - DB cluster to fail over.
    type: str
  promote:
    description:
      - Read replica (a DB instance) to promote.
    type: str
  from_az:
    description:
      - Availability zone that the instance is to leave. Where it runs in another one already, nothing is done.
    type: str
  target:
    description:
      - Member of the cluster that is to write. Where it writes already, nothing is done. By default AWS chooses.
    type: str
  writer_not:
    description:
      - Member of the cluster that is not to write any more. Where another one writes already, nothing is done, whatever
        O(target) says.
    type: str
  replica_of:
    description:
      - Source of the replica, an identifier or ARN. A replica of another source is refused. An instance that replicates
        nothing counts as promoted.
    type: str
  backup_retention_period:
    description:
      - Days that automated backups of the promoted replica are kept. By default what the replica has, and 7 where it
        has none. AWS itself would set one day.
    type: int
  wait_timeout:
    description:
      - Seconds to wait until the database is available, and then for the proof.
      - A failover of a Multi-AZ instance takes 60 to 120 seconds, one of a cluster about 30, a promotion some minutes.
    type: int
    default: 900
attributes:
  check_mode:
    description: Reads and checks everything, says whether it would fail over, and does not.
    support: full
  diff_mode:
    description: Shows the zone, the writer or the source before.
    support: none
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
notes:
  - How many seconds a replica is behind is known to CloudWatch (C(ReplicaLag)) and to the replica's own SQL
    (C(pg_last_xact_replay_timestamp)), not to the RDS API. RV(replication) is what the API says.
  - After a promotion applications must be pointed to the new database; see M(dbre.recovery.rds_identifier_swap).
seealso:
  - module: dbre.recovery.rds_identifier_swap
"""

EXAMPLES = r"""
- name: Leave the zone that has trouble
  dbre.recovery.rds_failover:
    region: eu-central-1
    db_instance_identifier: shop
    from_az: eu-central-1a

- name: Let another member of the cluster write
  dbre.recovery.rds_failover:
    region: eu-central-1
    db_cluster_identifier: shop-aurora
    target: shop-aurora-2
    writer_not: shop-aurora-1

- name: Go on in the other region
  dbre.recovery.rds_failover:
    region: eu-west-1
    promote: shop-replica
    replica_of: arn:aws:rds:eu-central-1:123456789012:db:shop
    backup_retention_period: 14
"""

RETURN = r"""
kind:
  description: What was failed over, V(multi_az_instance), V(aurora_cluster), V(multi_az_cluster) or V(read_replica).
  returned: success
  type: str
  sample: multi_az_instance
proved:
  description:
    - Whether it was read that another zone or writer has taken over, or that nothing is replicated any more, and that
      the database is available. Always true outside of check mode when the module does not fail.
  returned: always, when something was begun
  type: bool
  sample: true
before:
  description: C(availability_zone), C(writer) or C(source) before.
  returned: success
  type: dict
  sample: {"availability_zone": "eu-central-1a"}
after:
  description: The same after it; V(null) in check mode when something would be done.
  returned: success
  type: dict
  sample: {"availability_zone": "eu-central-1b"}
seconds:
  description: Seconds from the call to the proof; V(null) when nothing had to be done.
  returned: success
  type: float
  sample: 84.1
events:
  description:
    - AWS's own events of this failover; of the last day when nothing had to be done. AWS may send them late or not at
      all, so they prove nothing alone.
  returned: always, when something was begun
  type: list
  elements: dict
  sample:
    - time: "2026-11-25T03:20:11+00:00"
      message: Multi-AZ instance failover started.
      source: shop
    - time: "2026-11-25T03:21:24+00:00"
      message: Multi-AZ instance failover completed
      source: shop
database:
  description: The database as it is now.
  returned: success
  type: dict
  sample:
    identifier: shop
    resource_id: db-7RSTUVWXYZ2345ABCDEFGH
    arn: arn:aws:rds:eu-central-1:123456789012:db:shop
    status: available
    host: shop.abcdefghijkl.eu-central-1.rds.amazonaws.com
    port: 5432
    deletion_protection: true
replication:
  description: What AWS said of the replication before the promotion; V(null) when it said nothing.
  returned: when O(promote) is given
  type: dict
  sample: {"status": "replicating", "normal": true, "message": null}
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import WAIT, RdsModule, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.failover import (
    ensure_cluster_failover,
    ensure_instance_failover,
    ensure_promotion,
)

ONE_OF = ("db_instance_identifier", "db_cluster_identifier", "promote")


def run(module: RdsModule) -> dict[str, Any]:
    params, check_mode = module.params, module.check_mode
    rds, waiting = module.rds(), module.waiting()
    if params["db_instance_identifier"]:
        return ensure_instance_failover(rds, waiting, params["db_instance_identifier"], params["from_az"], check_mode)
    if params["promote"]:
        replica, retention = params["promote"], params["backup_retention_period"]
        return ensure_promotion(rds, waiting, replica, params["replica_of"], retention, check_mode)
    target, writer_not = params["target"], params["writer_not"]
    return ensure_cluster_failover(rds, waiting, params["db_cluster_identifier"], target, writer_not, check_mode)


def main() -> None:
    run_module(
        {
            **WAIT,
            "wait_timeout": {"type": "int", "default": 900},
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "promote": {"type": "str"},
            "from_az": {"type": "str"},
            "target": {"type": "str"},
            "writer_not": {"type": "str"},
            "replica_of": {"type": "str"},
            "backup_retention_period": {"type": "int"},
        },
        run,
        mutually_exclusive=[ONE_OF],
        required_one_of=[ONE_OF],
        required_by={
            "from_az": "db_instance_identifier",
            "target": "db_cluster_identifier",
            "writer_not": "db_cluster_identifier",
            "replica_of": "promote",
            "backup_retention_period": "promote",
        },
    )


if __name__ == "__main__":
    main()
