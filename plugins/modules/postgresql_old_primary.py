#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_old_primary
short_description: Keep what only an old primary has, and tell how it becomes a standby
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - An old primary whose valid WAL does not go beyond where the new timeline began has nothing of its own. It is marked
    as a standby (C(standby.signal)) and can stream from the new primary as it is.
  - From any other, WAL behind that place and the control file are copied first, and the transactions that exist only
    there are listed, since what makes a standby of it (C(pg_rewind), a restore) removes them.
  - Then its server is started once more, caged - without network, archive and libraries - and the rows that these
    transactions inserted or updated are copied into files, as the last of them left them.
  - The server must not run, and does not run afterwards.
attributes:
  check_mode:
    support: full
    description: Returns what would be done.
  diff_mode:
    support: none
    description: A data directory has no readable difference.
options:
  fork_lsn:
    description:
      - Where the timeline of the new primary began.
    type: str
    required: true
  timeline:
    description:
      - The timeline that the old primary was on.
    type: int
    required: true
  keep:
    description:
      - Directory to copy to. It must not be there yet.
    type: path
    required: true
  port:
    description:
      - Port of the old primary.
    type: int
    default: 5432
  login_user:
    description:
      - A database superuser of the old primary. No password is needed.
    type: str
    default: postgres
  data_directory:
    description:
      - Data directory, where Debian's C(pg_lsclusters) does not know the server.
    type: path
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
seealso:
  - module: dbre.recovery.postgresql_failover
  - module: dbre.recovery.pgbackrest_standby
notes:
  - Run it as the operating system user that owns the data directory.
"""

EXAMPLES = r"""
- name: Keep what only the old primary has
  dbre.recovery.postgresql_old_primary:
    fork_lsn: 0/6000148
    timeline: 1
    keep: /var/lib/postgresql/dbre-recovery/last-words-incident-7
  become: true
  become_user: postgres
  register: old_primary
"""

RETURN = r"""
way:
  description:
    - V(rejoin), when it is a standby now that has to be started; V(restore), when it has left the new timeline and has
      to be restored; V(follows), when it runs as a standby.
  returned: success
  type: str
  sample: rejoin
kept:
  description: Where what only it has was copied to; empty when there is nothing.
  returned: success
  type: str
  sample: /var/lib/postgresql/dbre-recovery/last-words-incident-7
own:
  description:
    - What only it has, C(from) where to which C(end), how many C(commits) in how many C(bytes), and the last hundred
      of its C(transactions), each with C(xid), C(time) and C(rows) that were inserted, updated and deleted. All of them
      are in C(transactions.json) of RV(kept).
    - Its C(rows) say of each table how many rows are in which C(file) in the directory C(rows) of RV(kept), and
      C(unread) why they could not be read, or is empty. Rows that were deleted are on the new primary.
  returned: success
  type: dict
  sample:
    from: 0/6000148
    end: 0/60003A8
    bytes: 608
    commits: 1
    transactions: [{xid: 741, time: "2026-11-29T17:02:11.120432+00:00", rows: {insert: 1, update: 0, delete: 0}}]
    rows: [{database: shop, schema: public, table: orders, rows: 1, file: shop.public.orders.16391.csv}]
    unread: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.last_words import prepare


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fork_lsn": {"type": "str", "required": True},
            "timeline": {"type": "int", "required": True},
            "keep": {"type": "path", "required": True},
            "port": {"type": "int", "default": 5432},
            "login_user": {"type": "str", "default": "postgres"},
            "data_directory": {"type": "path"},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        result = prepare(
            params["port"],
            params["fork_lsn"],
            params["timeline"],
            params["keep"],
            superuser=params["login_user"],
            data=params["data_directory"],
            bin_dir=params["bin_dir"],
            check_mode=module.check_mode,
        )
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. The new primary works. Run this again when that is mended.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
