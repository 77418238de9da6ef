#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_unarchived_info
short_description: What would be lost if a server were gone now
version_added: "0.1.0"
description:
  - Counts the transactions that a running primary has committed and that no repository of its stanza has, by reading
    the WAL behind the end of the archive in C(pg_wal). That is the RPO of this moment, in transactions and in seconds.
  - The archive is asked first, so what is archived meanwhile counts as lost.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
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
notes:
  - Run it on the primary's host, as the operating system user that owns the data directory and as a superuser of the
    database.
"""

EXAMPLES = r"""
- name: See what would be lost
  dbre.recovery.postgresql_unarchived_info:
    stanza: main
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
  register: unarchived
"""

RETURN = r"""
system_identifier:
  description: The server's system identifier, where what would be lost could not be counted.
  returned: failure, once the server was asked
  type: str
  sample: "7711488204033580105"
timeline:
  description: The server's timeline, in the same case.
  returned: failure, once the server was asked
  type: int
  sample: 1
loss:
  description:
    - C(transactions) that only the server has, and how many C(seconds) ago the oldest of them committed. Both are 0
      where the archive has all, however long ago the last transaction was.
  returned: success
  type: dict
  sample:
    transactions: 312
    seconds: 41.7
    from_lsn: 0/5000000
    to_lsn: 0/50A2E18
    first: "2026-11-29T04:00:11.310077+00:00"
    now: "2026-11-29T04:00:53.001220+00:00"
    system_identifier: "7711488204033580105"
    timeline: 1
"""

import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import last_archive, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import one_row, session
from ansible_collections.dbre.recovery.plugins.module_utils._wal.unarchived import refuse_other_cluster, unarchived

IDENTITY = """
SELECT system_identifier::text AS system_identifier, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline
FROM pg_catalog.pg_control_system()
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"bin_dir": {"type": "path"}, **connection_argument_spec(), **ARGUMENT_SPEC},
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    spool = tempfile.mkdtemp(prefix="unarchived-", dir=module.tmpdir)
    known: dict[str, Any] = {}
    try:
        facts = stanza_facts(PgBackRest(module.run_command, **stanza_of(params)).info())
        archive = last_archive(facts)
        connection = session(login_of(params))
        try:
            server = one_row(connection, IDENTITY)
            known = {"system_identifier": server["system_identifier"], "timeline": int(server["timeline"], 16)}
            refuse_other_cluster(facts, archive, server["system_identifier"])
            loss = unarchived(
                connection,
                archive["max"] if archive else None,
                StanzaArchive(**stanza_of(params)),
                spool,
                params["bin_dir"],
            )
        finally:
            connection.close()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **{**known, **error.details})
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, loss={**loss, "timeline": known["timeline"]})


if __name__ == "__main__":
    main()
