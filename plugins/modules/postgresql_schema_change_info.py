#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_schema_change_info
short_description: Tell what differs from the definitions that were kept before a change
version_added: "0.1.0"
description:
  - Compares every definition of a database, and roles and tablespaces, with what
    M(dbre.recovery.postgresql_schema_snapshot) kept. Functions, types, grants and policies are among them, of which WAL
    does not tell. Which transaction it was, and how many rows, tells
    M(dbre.recovery.postgresql_change_history_info) from the position that is returned here.
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
      - Directory on the host for all that are kept.
    type: path
    default: ~/dbre-changes
  database:
    description:
      - Database to compare, under the name that it had and has.
    type: str
    required: true
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
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: Does not show differences.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_schema_snapshot
  - module: dbre.recovery.postgresql_change_history_info
notes:
  - Run it as the operating system user that owns the server.
"""

EXAMPLES = r"""
- name: See what the release changed
  dbre.recovery.postgresql_schema_change_info:
    name: before_release_4_2
    database: shop
  become: true
  become_user: postgres
"""

RETURN = r"""
changes:
  description:
    - Definitions that were C(made), are C(gone) or were C(changed), with the lines that differ. V(null) where they
      could not be kept.
  returned: success
  type: list
  elements: dict
  sample: [{"what": "changed", "type": "TABLE", "name": "public.orders", "lines": ["-    what text,"]}]
text:
  description: The same for people, line by line.
  returned: success
  type: list
  elements: str
  sample: ["TABLE public.orders changed", "    -    what text,"]
snapshot:
  description: What was kept, as M(dbre.recovery.postgresql_schema_snapshot) returns it.
  returned: success
  type: dict
  sample: {"lsn": "0/19563E8", "at": "2026-11-23T20:59:58+00:00", "backup": "20261123-200000F"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.schema_snapshot import (
    WHOLE_SERVER,
    SchemaSnapshot,
    change_lines,
)
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
            "database": {"type": "str", "required": True},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        snapshot = SchemaSnapshot(params["path"], params["name"])
        with open_production(login_of(params), params["bin_dir"], "snapshot") as server:
            kept, found = snapshot.compare(server, params["database"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"what was kept in {params['path']} cannot be read: {error}. Nothing was touched.")
    missing = kept["not_kept"].get(params["database"])
    said = f"Definitions that differ from those kept at {kept['at']} (LSN {kept['lsn']}): {len(found) or 'none'}."
    if missing is not None:
        said = (
            f"Definitions cannot be compared, for they could not be kept at {kept['at']} (LSN {kept['lsn']}): {missing}"
        )
    untold = kept["not_kept"].get(WHOLE_SERVER)
    module.exit_json(
        changed=False,
        changes=None if missing is not None else [change._asdict() for change in found],
        text=[
            said,
            *change_lines(found),
            *([f"Not told: {WHOLE_SERVER}, which could not be kept: {untold}"] if untold else []),
        ],
        snapshot=kept,
    )


if __name__ == "__main__":
    main()
