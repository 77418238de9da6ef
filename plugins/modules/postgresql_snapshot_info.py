#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_snapshot_info
short_description: Fingerprints of a running server, with their position in WAL
version_added: "0.1.0"
description:
  - Takes the fingerprints of all tables of some databases of a primary, in snapshots that are all at one position in
    WAL. A restore to that position must have the same.
  - Reads every table once, in transactions that only read, and that hold back vacuum as long as it takes. Nobody waits
    for them.
  - The position is proved. Each commit before it is seen in each snapshot, and none from there on, by what WAL says. It
    is tried again until that is so.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  databases:
    description:
      - Names of the databases.
    type: list
    elements: str
    required: true
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, for C(pg_waldump). Without it, the usual places of the server's version.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.pgbackrest) and C(group/dbre.recovery.postgresql) in C(module_defaults) to
        set defaults for this module.
    support: full
    membership:
      - dbre.recovery.pgbackrest
      - dbre.recovery.postgresql
  check_mode:
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_restore_test
  - module: dbre.recovery.postgresql_fingerprint_info
notes:
  - Run it on the primary's host, as the operating system user that owns the data directory and as a superuser of the
    database.
  - Tables that cannot be read without running code of others are left out, and said to be.
"""

EXAMPLES = r"""
- name: Take what a restore will be compared with
  dbre.recovery.postgresql_snapshot_info:
    databases: [shop]
    stanza: main
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
  register: taken
"""

RETURN = r"""
snapshot:
  description:
    - Where it was taken, as C(lsn), C(timeline) and the WAL C(segment) that must be archived before a restore can get
      there. C(databases) has the rows, checksum and a hash of the definition by relation, C(not_checked) what was left
      out, C(tries) how often it was tried.
  returned: success
  type: dict
  sample:
    lsn: 0/50A2E18
    timeline: 1
    segment: "000000010000000000000005"
    system_identifier: "7711488204033580105"
    running: []
    tries: 1
    databases: {"shop": {"public.orders": {"rows": 1000, "checksum": "5:42", "definition": "9f86d081884c7d65"}}}
    not_checked: []
"""

import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC, stanza_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import take_fingerprints


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "databases": {"type": "list", "elements": "str", "required": True},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    if not params["databases"]:
        module.fail_json(msg="databases names none. Nothing was read. Name the databases to compare.")
    spool = tempfile.mkdtemp(prefix="snapshot-", dir=module.tmpdir)
    try:
        with translated_errors():
            archive = StanzaArchive(**stanza_of(params))
            snapshot = take_fingerprints(login_of(params), params["databases"], archive, spool, params["bin_dir"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, snapshot=snapshot)


if __name__ == "__main__":
    main()
