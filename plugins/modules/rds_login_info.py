#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_login_info
short_description: Find the password for an RDS database, and see that the database takes it
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Takes the password that is given, or reads it from a secret of AWS Secrets Manager or a passfile of libpq, and logs
    in with it once, so that a recovery does not find out in its middle that it cannot.
  - A passfile needs a line for the database itself only. A restored copy, whose address nobody knows yet, gets the
    password from M(dbre.recovery.rds_restore).
  - IAM authentication tokens are refused, since they end after 15 minutes, and each is for one address.
  - A database that does not answer within 5 seconds is no error, since that may be why somebody is here.
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
    description: Changes nothing in any case.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  db_instance_identifier:
    description:
      - The instance. It need not be there any more.
    type: str
  db_cluster_identifier:
    description:
      - The cluster, Aurora or Multi-AZ. It need not be there any more.
    type: str
  login_host:
    description:
      - Host name or address of the server. By default the endpoint that AWS names.
    type: str
  login_port:
    description:
      - Port of the server. By default that of the endpoint.
    type: int
    default: null
  password_secret:
    description:
      - Name or ARN of the secret in AWS Secrets Manager that holds the password, as plain text or as RDS keeps it (a
        JSON object with C(username) and C(password)).
    type: str
  copied:
    description:
      - Whether a restored copy is to be logged in to as well, for which O(login_user) has to be the master user.
    type: bool
    default: false
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
seealso:
  - module: dbre.recovery.rds_restore
"""

EXAMPLES = r"""
- name: See that the passfile is good for the instance shop
  dbre.recovery.rds_login_info:
    db_instance_identifier: shop
    login_user: shopmaster
    login_passfile: ~/.pgpass
  register: login
  no_log: true # the password

- name: Take the password from the secret that RDS keeps
  dbre.recovery.rds_login_info:
    db_instance_identifier: shop
    login_user: shopmaster
    password_secret: rds!db-4f9a7c1e-5d0b-4f0e-8c55-0f3b7c2d9a10
  register: login
  no_log: true # the password
"""

RETURN = r"""
found_in:
  description: Where the password is, in words.
  returned: success
  type: str
  sample: the passfile /home/dba/.pgpass
ca_cert:
  description: O(ca_cert) as a path that begins at the root.
  returned: success
  type: str
  sample: /home/dba/.postgresql/rds-global-bundle.pem
password:
  description:
    - The password that was found, so that a task which registers this needs C(no_log=true). Null where it was given,
      and where there is none.
  returned: success
  type: str
  sample: null
"""

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.login import Asked, find_login
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RdsModule, run_module


def info(module: RdsModule) -> dict[str, Any]:
    asked = pick(Asked, module.params)
    rds = module.rds(patient=False)
    return find_login(asked, login_of(module.params), rds, lambda region: module.client("secretsmanager", region))


def main() -> None:
    run_module(
        {
            **connection_argument_spec(),
            "login_port": {"type": "int"},
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "password_secret": {"type": "str", "no_log": False},
            "copied": {"type": "bool", "default": False},
        },
        info,
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
