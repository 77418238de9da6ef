#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_wal_salvage
short_description: Give a standby the WAL that it lacks, from other hosts and the archive
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Joins segments that were brought from other hosts with those of the archive to one
    continuous stretch of WAL behind what the standby has, proves its end by C(pg_waldump), and puts it into the
    standby's C(pg_wal). A segment that is written in part, as the last one of a dead primary, is taken up to its last
    valid record.
attributes:
  check_mode:
    description: Returns what would be taken. Nothing is put into C(pg_wal).
    support: full
  diff_mode:
    description: WAL has no readable difference.
    support: none
options:
  path:
    description:
      - Directory with what was brought, for each of O(sources) a directory of that name.
    type: path
    required: true
  sources:
    description:
      - Names of hosts from which segments were brought.
    type: list
    elements: str
    default: []
  timeline:
    description:
      - The timeline that the standby is on.
    type: int
    required: true
  expected:
    description:
      - LSN up to which there has been WAL on any host. What is joined must lead there.
    type: str
    required: true
  lose:
    description:
      - Go on with less where it does not.
    type: bool
    default: false
  stanza:
    description:
      - pgBackRest's stanza of this cluster. Without it no archive is asked.
    type: str
  config:
    description:
      - pgBackRest's configuration file.
    type: path
  executable:
    description:
      - pgBackRest's program.
    type: str
    default: pgbackrest
  data_directory:
    description:
      - Data directory, where Debian's C(pg_lsclusters) does not know the server.
    type: path
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
extends_documentation_fragment:
  - dbre.recovery.postgresql
notes:
  - Run it as the operating system user that owns the data directory, and as a superuser of the database.
"""

EXAMPLES = r"""
- name: Have what only the dead primary's disk had
  dbre.recovery.postgresql_wal_salvage:
    path: /var/lib/postgresql/dbre-recovery/failover-5432
    sources: [db1]
    timeline: 1
    expected: 0/6000500
    stanza: main
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
from:
  description: Where the standby's own WAL ended.
  returned: success
  type: str
  sample: 0/6000148
end:
  description: Where it ends now, proved.
  returned: success
  type: str
  sample: 0/6000500
commits:
  description: Transactions that were committed in between.
  returned: success
  type: int
  sample: 3
last_commit:
  description: When the last of them was committed.
  returned: success
  type: str
  sample: "2026-11-23T18:01:11.201000+00:00"
taken:
  description: How many segments were taken from where; C(archive) is the archive.
  returned: success
  type: dict
  sample: {db1: 1}
bytes:
  description: How much WAL that is, in bytes.
  returned: when the server is a standby
  type: int
  sample: 952
archive_unread:
  description: Why the archive could not be read; empty when it could.
  returned: when the server is a standby
  type: str
  sample: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._failover.salvage import Wanted, salvage
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sources": {"type": "list", "elements": "str", "default": []},
            "timeline": {"type": "int", "required": True},
            "expected": {"type": "str", "required": True},
            "lose": {"type": "bool", "default": False},
            "stanza": {"type": "str"},
            "config": {"type": "path"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "data_directory": {"type": "path"},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    stanza = {name: params[name] for name in ("stanza", "config", "executable")} if params["stanza"] else {}
    try:
        archive = StanzaArchive(**stanza, parallel=1) if stanza else None
        result = salvage(login_of(params), pick(Wanted, params), archive, module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Nothing was promoted. Run this again when that is mended.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
