#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_presence_info
short_description: Tell whether tables are there and hold rows
version_added: "0.1.0"
description:
  - Returns of each relation whether it exists and whether it has at least one row, which reads no more than its first
    pages. So a search for the moment of a loss can look into one restore after another.
  - Rows of a table are read as its owner, so that nothing the owner put there runs with the rights of O(login_user).
options:
  database:
    description:
      - Name of the database.
    type: str
    required: true
  relations:
    description:
      - Relations, written as in SQL. A name without a schema is in C(public).
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing in any case.
  diff_mode:
    support: none
    description: Changes nothing.
extends_documentation_fragment:
  - dbre.recovery.postgresql
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look whether the orders are in the restored copy
  dbre.recovery.postgresql_presence_info:
    login_host: shop-copy.example.com
    login_user: shopmaster
    login_passfile: ~/.pgpass
    database: shop
    relations: [public.orders]
  register: seen
"""

RETURN = r"""
relations:
  description:
    - By relation, whether it exists and is filled. Inheritance children count as part of a table. What has no rows of
      its own, such as a view or a foreign table, is not read and counts as filled.
  returned: success
  type: dict
  sample: {"public.orders": {"exists": true, "filled": true}}
present:
  description: Whether all of them exist and are filled.
  returned: success
  type: bool
  sample: true
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import parse_relation_list
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors
from ansible_collections.dbre.recovery.plugins.module_utils._tables.presence import presence


def look(params: dict[str, Any]) -> dict[str, Any]:
    connection = connect(login_of(params), params["database"])
    try:
        with translated_errors():
            seen = presence(connection, parse_relation_list(params["relations"]))
    finally:
        connection.close()
    return {"relations": seen, "present": all(one["filled"] for one in seen.values())}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(changed=False, **look(module.params))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
