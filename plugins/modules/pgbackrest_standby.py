#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_standby
short_description: Ensure the data directory of a standby, restored from the repository
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Restores the newest backup as a standby (C(--type=standby)) where there is no data directory yet. A restore that was
    killed goes on (C(--delta)).
  - A directory in which a primary runs, one of another server and one that is no cluster are refused. So is one of the
    same server that is no standby, such as an old primary's, unless O(rebuild) is set.
  - The server is not started. Settings in the restored C(postgresql.auto.conf) that are a standby's own (archiving,
    connection, network, files, and those that must be at least the primary's) are removed from it, as they would win
    over its configuration.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: A data directory has no readable difference.
    support: none
options:
  path:
    description:
      - The data directory.
    type: path
    required: true
  system_identifier:
    description:
      - The primary's system identifier.
    type: str
    required: true
  major_version:
    description:
      - The primary's major version.
    type: int
    required: true
  rebuild:
    description:
      - Whether to make a directory of the same server anew, which is stopped if it is a running standby. What is only
        in that directory is lost.
    type: bool
    default: false
  rewind_from:
    description:
      - Connection string of the primary for O(rebuild), without a password, quotes, or blanks in its values. What
        differs is taken from there by C(pg_rewind), where that can be done, and the directory is restored where it
        cannot. The role has to be one that
        may execute C(pg_ls_dir), C(pg_stat_file) and C(pg_read_binary_file); its C(passfile), where it names one, has
        the password.
      - Meanwhile the directory has a mode with which PostgreSQL does not start.
    type: str
  config_file:
    description:
      - The configuration file of that directory's server, where it is elsewhere. C(restore_command) in it is how
        C(pg_rewind) gets WAL that the directory has no more.
    type: path
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_restore
notes:
  - Run it as the operating system user that shall own the standby.
"""

EXAMPLES = r"""
- name: Restore the data directory of a standby
  dbre.recovery.pgbackrest_standby:
    stanza: main
    path: /var/lib/postgresql/17/main
    system_identifier: "7711488204033580105"
    major_version: 17
  become: true
  become_user: postgres
"""

RETURN = r"""
action:
  description: What was done, or in check mode would be.
  returned: success
  type: str
  choices: [none, restore, delta, rewind]
  sample: restore
not_rewound:
  description: Why a directory was restored and not rewound; empty otherwise.
  returned: success
  type: str
  sample: it has neither data checksums nor wal_log_hints
settings:
  description:
    - Settings that the standby must have at least as high, from the control file. Empty where there is none yet.
  returned: success
  type: dict
  sample: {"max_connections": 100, "max_worker_processes": 8, "max_wal_senders": 10,
           "max_prepared_transactions": 0, "max_locks_per_transaction": 64}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    refuse_root,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.standby import Standby


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "system_identifier": {"type": "str", "required": True},
            "major_version": {"type": "int", "required": True},
            "rebuild": {"type": "bool", "default": False},
            "rewind_from": {"type": "str"},
            "config_file": {"type": "path"},
            "bin_dir": {"type": "path"},
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        refuse_root("restore")
        standby = Standby(
            params["path"],
            system_identifier=params["system_identifier"],
            major_version=params["major_version"],
            backrest=PgBackRest(module.run_command, **stanza_of(params)),
            run=module.run_command,
            rebuild=params["rebuild"],
            rewind_from=params["rewind_from"] or "",
            config_file=params["config_file"] or "",
            bin_dir=params["bin_dir"],
        )
        module.exit_json(**standby.ensure(module.check_mode))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. The primary was not touched; run again, it goes on.")


if __name__ == "__main__":
    main()
