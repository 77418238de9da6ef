#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_index_rebuild
short_description: Build damaged indexes anew while production goes on
version_added: "0.1.0"
description:
  - Ensures that indexes which M(dbre.recovery.postgresql_corruption_info) found damaged, or sorted by a collation that
    changed, are made anew from their tables. One that has another file than was found was rebuilt since, and is left.
  - Uses C(REINDEX INDEX CONCURRENTLY), which keeps nobody from reading or writing; it waits at most ten minutes for
    older transactions of others. What a rebuild that was broken off left is dropped.
  - An index of the catalogue can only be rebuilt while others wait for it; this is given up after half a second without
    the lock.
  - Records the version of a collation once all indexes that were sorted by it are rebuilt, unless tables are
    partitioned by it, whose rows may lie in the wrong partition.
  - What cannot be rebuilt is told with its reason, and is no failure of the task.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  indexes:
    description:
      - RV(dbre.recovery.postgresql_corruption_info#module:indexes), whole.
    type: list
    elements: dict
    required: true
    suboptions:
      database:
        description: Name of the database.
        type: str
        required: true
      oid:
        description: OID of the index.
        type: int
        required: true
      schema:
        description: Its schema.
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      path:
        description: Its file when it was found.
        type: str
        required: true
  progress_file:
    description:
      - File that says, as long as the module works, how far it is.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.postgresql) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
  check_mode:
    description: Tells which indexes would be rebuilt, and changes nothing.
    support: full
  diff_mode:
    description: Does not show differences.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_corruption_info
"""

EXAMPLES = r"""
- name: Rebuild what was found damaged
  dbre.recovery.postgresql_index_rebuild:
    indexes: "{{ corruption.indexes }}"
  become: true
  become_user: postgres
"""

RETURN = r"""
indexes:
  description:
    - What became of each. RV(ignore:state) is V(rebuilt), V(to be rebuilt) in check mode, V(rebuilt before), V(gone)
      where it was rebuilt beside or dropped since, or V(left) with the reason.
  returned: success
  type: list
  elements: dict
  sample: [{"database": "shop", "index": "public.users_name", "state": "rebuilt", "why": null}]
refreshed:
  description: Collations whose version was recorded anew.
  returned: success
  type: list
  elements: str
  sample: [database shop in shop]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.raw_text import readable
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rebuild import Rebuild


def main() -> None:
    index = {
        "database": {"type": "str", "required": True},
        "oid": {"type": "int", "required": True},
        "schema": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "path": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "indexes": {"type": "list", "elements": "dict", "required": True, "options": index},
            "progress_file": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    progress = Progress(module.params["progress_file"])
    rebuild = Rebuild(login_of(module.params), progress)
    try:
        changed = rebuild.run(module.params["indexes"], module.check_mode)
    except RecoveryError as error:
        module.fail_json(**readable({"msg": error.msg, "indexes": rebuild.done, **error.details}))
    finally:
        progress.end()
    module.exit_json(**readable({"changed": changed, "indexes": rebuild.done, "refreshed": rebuild.refreshed}))


if __name__ == "__main__":
    main()
