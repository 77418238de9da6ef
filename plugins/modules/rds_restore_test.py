#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_restore_test
short_description: Restore an RDS or Aurora database beside, check what it holds, remove it, and keep what was found
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Restores the database from its automated backups under the name C(NAME-dbre-verify), logs in, checks what is there,
    and removes it whatever happened. The source is only read.
  - The copy has the source's security groups and subnets and is never publicly accessible. It has a parameter group of
    its own under which no subscription and no scheduled job comes to life, a password that nobody knows, no protection
    from deletion and no final snapshot. Its tags say of which test it is, and in C(dbre:expires) until when.
  - Says V(verified), V(failed) or V(could_not_verify), with a finding under a stable code for each reason.
    docs/verification.md lists the codes and describes the files. No row is ever shown.
  - The attempt is written down before anything is tried. What a killed test left is removed by the next one.
  - A verdict is a result, and no failure of the task.
options:
  db_instance_identifier:
    description:
      - The instance whose backups are tested.
    type: str
  db_cluster_identifier:
    description:
      - The cluster whose backups are tested.
    type: str
  directory:
    description:
      - Directory of the history, C(verification-NAME.json), and below C(verifications/ID) of the report.
    type: path
    required: true
  host:
    description:
      - Name of this host in the report.
    type: str
    required: true
  tier:
    description:
      - Name of the policy's tier, for the report.
    type: str
  policy:
    description:
      - The backup policy, RV(dbre.recovery.backup_policy_info#module:policy).
    type: dict
  point:
    description:
      - To which moment is restored. V(latest) is the latest one there is, V(random) a moment in the window, V(kept) the
        oldest one of which an earlier test has kept fingerprints, which the copy must equal; or a time with its offset.
    type: str
    default: latest
  seed:
    description:
      - Decides what chance chooses. The default is another one each time, which the report holds.
    type: str
    default: ""
  ignore:
    description:
      - Codes of findings that change no verdict, each with the reason. An empty reason is an error.
    type: dict
    default: {}
  timeout:
    description:
      - Seconds that the test may take, without the removal, for which there is an hour more. It bounds the cost, too.
    type: int
    default: 14400
  signing_key:
    description:
      - File of a private SSH key, or of the public one where an agent has the private one, that signs C(report.json).
    type: path
  compare:
    description:
      - Databases that are compared with production's. It is read twice for that, before the moment that is restored
        and after it. The test then restores to that moment instead of O(point), and waits until AWS can.
      - For this alone the password of production is needed.
    type: list
    elements: str
    default: []
  assertions:
    description:
      - Questions that the restored databases are asked, as a role that may read all data and nothing else.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is asked, for the report.
        type: str
        required: true
      database:
        description: Name of the database.
        type: str
        required: true
      sql:
        description: A query with one row of one column, a number. Of no other answer anything is shown.
        type: str
        required: true
      expect:
        description: A comparison with a number, such as C(>= 1000).
        type: str
        required: true
  password_secret:
    description:
      - Name or ARN of the secret in AWS Secrets Manager that holds the password of O(login_user).
    type: str
  login_host:
    description:
      - Host name or address of production; by default the endpoint that AWS names.
    type: str
  login_port:
    description:
      - Port of production; by default that which AWS shows.
    type: int
    default: null
  progress_file:
    description:
      - File to which progress is written while it waits.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.postgresql) and C(group/dbre.recovery.rds) in C(module_defaults) to
        set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
      - dbre.recovery.rds
  check_mode:
    description: Says what would be restored and what it would occupy. Nothing is made, and nothing is written.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: dbre.recovery.pgbackrest_restore_test
  - module: dbre.recovery.rds_restore
"""

EXAMPLES = r"""
- name: Restore the database beside, and check it
  dbre.recovery.rds_restore_test:
    db_instance_identifier: shop
    directory: /home/dba/restore-tests
    host: shop
    ssl_mode: verify-full
    ca_cert: /home/dba/rds-global-bundle.pem
  register: tested
"""

RETURN = r"""
report:
  description:
    - What C(report.json) holds. C(seconds) are those of each phase, C(rto) what was measured against the policy,
      C(cost) what the copy occupies, C(checks) the answers, C(removed) the proof that nothing is left.
  returned: success
  type: dict
  sample:
    stanza: shop
    kind: DB instance
    verdict: verified
    seconds: {"restore": 612.4, "ready": 0.3, "checked": 41.0}
    rto: {"seconds": 612.7, "objective": 14400.0, "met": true}
    target: {"type": "time", "value": "2026-11-25T03:11:59+00:00", "reason": "the latest moment that AWS could restore"}
    removed: {"copy": "shop-dbre-verify", "left": []}
text:
  description: The same for people.
  returned: success
  type: str
  sample: "VERIFIED: DB instance 'shop'"
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RdsModule, plain, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_test import RdsRequest, RdsRestoreTest
from ansible_collections.dbre.recovery.plugins.module_utils._verification.record import shown


def verify(module: RdsModule) -> dict[str, Any]:
    test = RdsRestoreTest(
        pick(RdsRequest, module.params),
        login_of(module.params),
        module.rds(),
        lambda region: module.rds(region, patient=False),
        lambda region: module.client("secretsmanager", region),
    )
    try:
        report = dict(plain(test.dry_run() if module.check_mode else test.run()))
    except OSError as error:
        raise RecoveryError(
            f"{error}. The history of restore tests could not be written, so none is to be trusted."
        ) from error
    return {"changed": not module.check_mode, "report": report, "text": shown(report)}


def main() -> None:
    run_module(
        {
            **connection_argument_spec(),
            "login_port": {"type": "int"},
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "directory": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "tier": {"type": "str"},
            "policy": {"type": "dict"},
            "point": {"type": "str", "default": "latest"},
            "seed": {"type": "str", "default": "", "no_log": False},
            "ignore": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 14400},
            "signing_key": {"type": "path", "no_log": False},
            "compare": {"type": "list", "elements": "str", "default": []},
            "assertions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("name", "database", "sql", "expect")},
            },
            "password_secret": {"type": "str", "no_log": False},
            "progress_file": {"type": "path"},
        },
        verify,
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
