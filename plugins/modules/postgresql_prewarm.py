#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_prewarm
short_description: Read all that a PostgreSQL server has on disk once
version_added: "0.1.0"
description:
  - The volume of a restored Amazon RDS instance loads lazily from S3, so that each block is slow when it is read first.
    This module reads every block once, before applications do.
  - Reads every fork of every table, index, sequence, materialized view and TOAST table with C(pg_prewarm), mode
    C(read), which goes around the server's own buffers. Where the extension is not there, it is created in the schema
    C(dbre_warm) and removed again.
  - Where the extension cannot be had, every table is scanned in full, with its TOAST, by computing a checksum of all
    its rows. Indexes are not read then.
  - Needs no superuser. A role that is none becomes a member of the owners meanwhile, and gives that back. What is left
    of a run that was killed is removed by the next one.
  - System catalogues that only superusers may read are passed over.
options:
  database:
    description:
      - Name of the database. The default is every database that the role can connect to.
    type: str
  parallel:
    description:
      - Number of sessions that read at a time.
    type: int
    default: 4
  progress_file:
    description:
      - File that holds one JSON object with C(at), C(what), C(done), C(total) and C(unit) while the module works.
      - It is removed at the end.
    type: path
attributes:
  check_mode:
    support: full
    description: Says how many bytes would be read.
  diff_mode:
    support: none
    description: Changes nothing.
extends_documentation_fragment:
  - dbre.recovery.postgresql
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Warm a restored RDS instance before applications come
  dbre.recovery.postgresql_prewarm:
    login_host: shop-restored.abc123.eu-central-1.rds.amazonaws.com
    login_user: master
    login_passfile: ~/.pgpass
    ssl_mode: verify-full
    ca_cert: /etc/ssl/rds-global-bundle.pem
    parallel: 16
    progress_file: /var/tmp/warm.progress
  register: warmed

- name: Warm one database of a server
  dbre.recovery.postgresql_prewarm:
    database: shop
  become: true
  become_user: postgres
"""

RETURN = r"""
bytes:
  description: Bytes that were read (or would be).
  returned: success
  type: int
  sample: 81920
relations:
  description: Number of relations they belong to.
  returned: success
  type: int
  sample: 412
seconds:
  description: Seconds it took.
  returned: success
  type: float
  sample: 12.5
method:
  description: C(pg_prewarm), C(scan), or C(mixed) when the databases differ.
  returned: success
  type: str
  sample: pg_prewarm
databases:
  description: The same by database. With the method C(scan), C(reason) says why pg_prewarm could not be had.
  returned: success
  type: dict
  sample: {"shop": {"method": "pg_prewarm", "reason": null, "bytes": 81920, "relations": 412}}
unread:
  description: Relations that the role may not read, each with C(database), C(relation) and C(reason).
  returned: success
  type: list
  elements: dict
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._guard.warm import databases_of, warm
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, translated_errors


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str"},
            "parallel": {"type": "int", "default": 4},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    progress = Progress(params["progress_file"])
    try:
        server = Server(login_of(params), "", "dbre.recovery warm")
        with translated_errors():
            databases = [params["database"]] if params["database"] else databases_of(server)
            result = warm(server, databases, params["parallel"], progress, module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    finally:
        progress.end()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
