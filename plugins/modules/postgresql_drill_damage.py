#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_drill_damage
short_description: Damage tables of a copy for a drill
version_added: "0.1.0"
description:
  - Commits some rows one after the other, into a table of its own, keeps what the tables hold then, and damages them
    all in one transaction, for real.
  - It goes to the copy that M(dbre.recovery.pgbackrest_drill_copy) made at O(path), and can be told of no other server.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - Directory of the copy.
    type: path
    required: true
  database:
    description:
      - Database of the tables.
    type: str
    required: true
  tables:
    description:
      - Tables to damage, quoted as in SQL.
      - With V(crash) they are only compared afterwards, and may be left out.
    type: list
    elements: str
    default: []
  kind:
    description:
      - What happens to them. V(drop) and V(truncate) take along what hangs on them, as C(CASCADE) does. V(update) makes
        one column of every row wrong, as the tables' owner, and with his triggers. V(pages) spoils the first page of
        each table on disk. V(crash) kills the whole server, while rows are committed to it all the time; the copy has
        to have a standby (M(dbre.recovery.postgresql_drill_standby)), which streams.
    type: str
    choices: [drop, truncate, delete, update, pages, crash]
    default: drop
attributes:
  check_mode:
    description: There is no copy in check mode, so that nothing can be damaged.
    support: none
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.postgresql_drill_damage_info
"""

EXAMPLES = r"""
- name: Drop a table of the copy
  dbre.recovery.postgresql_drill_damage:
    path: /var/lib/postgresql/dbre-recovery/drill-main
    database: shop
    tables: [public.orders]
"""

RETURN = r"""
damage:
  description:
    - What was done. C(names) are all tables that were damaged, among them that of the rows in C(written). C(xid) is
      V(null) where no transaction did it.
  returned: success
  type: dict
  sample:
    at: "2026-11-29T18:00:12.345678+00:00"
    kind: drop
    names: ['"public"."orders"', '"dbre_drill"."written"']
    rows: 3050
    tables: [public.orders, dbre_drill.written]
    written: 50
    xid: 741
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill.crash import CRASH, DrilledPair
from ansible_collections.dbre.recovery.plugins.module_utils._drill.damage import KINDS, DrilledCopy


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "database": {"type": "str", "required": True},
            "tables": {"type": "list", "elements": "str", "default": []},
            "kind": {"type": "str", "choices": [*KINDS, CRASH], "default": "drop"},
        },
        required_if=[("kind", kind, ["tables"]) for kind in KINDS],
    )
    check_arguments(module)
    try:
        where = (module.params["path"], module.params["database"])
        tables, kind = module.params["tables"], module.params["kind"]
        damage = DrilledPair(*where).crash(tables) if kind == CRASH else DrilledCopy(*where).damage(tables, kind)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=True, damage=damage)


if __name__ == "__main__":
    main()
