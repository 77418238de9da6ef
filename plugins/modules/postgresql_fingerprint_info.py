#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_fingerprint_info
short_description: Take the fingerprint of tables, rows and definitions
version_added: "0.1.0"
description:
  - Returns what a table is and holds. That is the number of rows, a checksum of them, and its definition with columns,
    constraints, indexes, owner, grants, triggers, policies, rules, statistics, publications and the values of its
    sequences.
  - The checksum does not depend on the order of rows, and is the same on any server of the same major version that
    holds the same values. It is the sum of a 64-bit hash of each row, so it is spread over several processes.
  - Rows that were lost, added, doubled, changed or moved to another table, and values that changed places between rows,
    are seen, each change but for one in 2^64, which is no protection from somebody who looks for such a change on
    purpose. What a type writes as the same text is the same, such as blanks at the end of a C(char). Which row stands
    where in the table's file is no difference.
  - With O(compare_to), returns what differs from another fingerprint.
  - Passwords in definitions (of a default, a trigger's argument, a comment) are masked, and two of them count as the
    same.
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
    default: []
  schemas:
    description:
      - Schemas, written as in SQL. All tables in them are taken.
    type: list
    elements: str
    default: []
  checksum:
    description:
      - Whether to count and hash the rows, which reads each table once.
    type: bool
    default: true
  max_of:
    description:
      - Name of a column whose greatest value is returned as C(max), for tables that have it.
    type: str
  compare_to:
    description:
      - Another fingerprint, as RV(fingerprint), to compare this one with. A checksum names the way it was made, before
        its colon; one that was made in another way is refused.
    type: dict
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
- name: Take the fingerprint of a table before a change
  dbre.recovery.postgresql_fingerprint_info:
    database: shop
    relations: [public.orders]
    max_of: id
  become: true
  become_user: postgres
  register: before

- name: See what has become of it
  dbre.recovery.postgresql_fingerprint_info:
    database: shop
    relations: [public.orders]
    max_of: id
    compare_to: "{{ before.fingerprint }}"
  become: true
  become_user: postgres
"""

RETURN = r"""
fingerprint:
  description: By relation, its rows and its definition.
  returned: success
  type: dict
  sample:
    public.orders: {"kind": "r", "rows": 1000, "checksum": "5:42", "max": "1000", "owner": "shop", "columns": [],
      "constraints": ["orders_pkey: PRIMARY KEY (id)"], "indexes": [], "triggers": [], "policies": [], "grants": [],
      "sequences": {"public.orders_id_seq": {"last_value": 1000, "is_called": true, "increment": 1}}}
difference:
  description:
    - What differs from O(compare_to), each with C(relation), C(property), C(recovered) (the value of O(compare_to)) and
      C(production) (the value here). A sequence differs only when it is behind.
  returned: when O(compare_to) is given
  type: list
  elements: dict
  sample: []
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import masked
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import (
    difference,
    parallel_settings,
    require_same_checksums,
    take_fingerprint,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def run(params: dict[str, Any]) -> dict[str, Any]:
    settings = parallel_settings(len(os.sched_getaffinity(0)))
    connection = connect(login_of(params), params["database"], settings=settings)
    try:
        with translated_errors():
            fingerprint = take_fingerprint(
                connection,
                parse_relation_list(params["relations"]),
                parse_schema_list(params["schemas"]),
                checksum=params["checksum"],
                max_of=params["max_of"],
            )
    finally:
        connection.close()
    if params["compare_to"] is None:
        return {"fingerprint": fingerprint}
    require_same_checksums(params["compare_to"], fingerprint)
    # What is compared with was returned, so that its definitions are masked.
    return {"fingerprint": fingerprint, "difference": difference(masked(params["compare_to"]), masked(fingerprint))}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "str", "default": []},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "checksum": {"type": "bool", "default": True},
            "max_of": {"type": "str"},
            "compare_to": {"type": "dict"},
        },
        required_one_of=[("relations", "schemas")],
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        result = run(module.params)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
