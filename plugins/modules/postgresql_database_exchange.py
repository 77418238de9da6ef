#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_database_exchange
short_description: Give a database the name of another, which is kept
version_added: "0.1.0"
description:
  - Renames two databases in one transaction. The one that has the name goes on as O(kept_as), and O(replacement) gets
    the name.
  - Sessions in both are ended for that, as a superuser may. New ones wait meanwhile, at most about five seconds.
  - Nothing else of the two is changed, but what keeps applications from writing
    (M(dbre.recovery.postgresql_containment)) goes with the name, so that it is lifted under it.
  - Refused where a prepared transaction waits in one of the two, since PostgreSQL renames no such database.
options:
  database:
    description:
      - The name.
    type: str
    required: true
  replacement:
    description:
      - The database that gets it.
    type: str
    required: true
  kept_as:
    description:
      - What the database is called then that has it now.
    type: str
    required: true
  incident:
    description:
      - Identifier of the incident, which marks the transaction in WAL and names the sessions.
    type: str
    required: true
  bin_dir:
    description:
      - Directory of the client programs. Without it they are looked for where the distributions put them.
    type: path
attributes:
  check_mode:
    support: full
    description: Says whether anything would be changed.
  diff_mode:
    support: none
    description: The names are all that changes.
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_table_recovery
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: It was right after all, so the database from before the recovery serves again
  dbre.recovery.postgresql_database_exchange:
    database: shop
    replacement: shop_damaged_4711
    kept_as: shop_recovered_4711
    incident: "4711"
  become: true
  become_user: postgres
"""

RETURN = r"""
sessions:
  description: Number of sessions that were ended.
  returned: changed, and not in check mode
  type: int
  sample: 12
seconds:
  description: How long new sessions waited.
  returned: changed, and not in check mode
  type: float
  sample: 0.2
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import Exchange, connect_elsewhere


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    names = params["database"], params["replacement"], params["kept_as"]
    with open_production(login_of(params), params["bin_dir"], params["incident"]) as production:
        exchange = Exchange(production, params["incident"], *names)
        connection = connect_elsewhere(production, *names)
        try:
            done = exchange.is_done(connection)
        finally:
            connection.close()
        if done or check_mode:
            return {"changed": not done}
        return {"changed": True, **exchange.run()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str", "required": True},
            "replacement": {"type": "str", "required": True},
            "kept_as": {"type": "str", "required": True},
            "incident": {"type": "str", "required": True},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        result = run(module.params, module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
