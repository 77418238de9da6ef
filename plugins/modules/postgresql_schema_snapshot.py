#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_schema_snapshot
short_description: Keep every definition of a primary before a change, and set a restore point
version_added: "0.1.0"
description:
  - Ensures that the definitions of all databases, and of roles and tablespaces without passwords, are kept on the host
    as C(pg_dump --schema-only) writes them, with the position in WAL of just before. What differs afterwards,
    M(dbre.recovery.postgresql_schema_change_info) tells.
  - A restore point of the same name is set right after, once.
  - They may hold what nobody else is to read, so only the server's user can read the directory.
  - Nothing else of the server is changed. A dump that waits for a lock for two seconds is given up, since others wait
    behind it. The definitions of that database are then not kept, which is said, and the restore point is set.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  name:
    description:
      - Name under which the definitions are kept, of the change or of the restore point.
    type: str
    required: true
  path:
    description:
      - Directory on the host for all that are kept. Made where it is missing.
    type: path
    default: ~/dbre-changes
  backup:
    description:
      - Label of the backup that the way back begins with, which is kept with them.
    type: str
    default: ""
  bin_dir:
    description:
      - Directory of PostgreSQL's programs. Without it the usual places are looked at.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.postgresql) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
  check_mode:
    description: Writes nothing, and says whether it would.
    support: full
  diff_mode:
    description: Does not show differences.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_schema_change_info
notes:
  - Run it as the operating system user that owns the server.
"""

EXAMPLES = r"""
- name: Keep what is defined before the release
  dbre.recovery.postgresql_schema_snapshot:
    name: before_release_4_2
  become: true
  become_user: postgres
"""

RETURN = r"""
path:
  description: Directory with them on the host.
  returned: success
  type: str
  sample: /var/lib/postgresql/dbre-changes/before_release_4_2
snapshot:
  description:
    - What was kept, and what was C(not_kept) and why, with the SHA-256 of each file, the position in WAL and the time.
      V(null) in check mode where nothing was kept yet.
  returned: success
  type: dict
  sample: {"lsn": "0/19563E8", "at": "2026-11-23T20:59:58+00:00", "system_identifier": "7711487094474521737",
           "backup": "20261123-200000F", "name": "before_release_4_2",
           "restore_point": {"name": "before_release_4_2", "lsn": "0/19563F0", "timeline": 1, "cluster": "15/main",
                             "segment": "000000010000000000000001", "at": "2026-11-23T20:59:59.104243+00:00"},
           "databases": {"shop": {"file": "16384.sql", "sha256": "5e1f...c9"}}, "not_kept": {},
           "globals": {"file": "globals.sql", "sha256": "0b7c...1d"}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.schema_snapshot import SchemaSnapshot
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "default": "~/dbre-changes"},
            "backup": {"type": "str", "default": ""},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        snapshot = SchemaSnapshot(params["path"], params["name"])
        kept = snapshot.known()
        changed = kept is None
        if changed and not module.check_mode:
            with open_production(login_of(params), params["bin_dir"], "snapshot") as server:
                kept = snapshot.keep(server, params["backup"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"definitions cannot be kept in {params['path']}: {error}. Nothing was touched.")
    module.exit_json(changed=changed, path=str(snapshot.path), snapshot=kept)


if __name__ == "__main__":
    main()
