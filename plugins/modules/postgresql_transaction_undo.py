#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_transaction_undo
short_description: Take back what transactions did to rows
version_added: "0.1.0"
description:
  - Takes back the rows that one committed transaction, or several, inserted, updated and deleted, in one transaction.
    The rows as they found them and as they left them come from a side instance that went past them (O(ignore:images) of
    M(dbre.recovery.postgresql_side_instance)). Rows that somebody else changed between several are conflicts.
  - Rows that production still has as the transaction left them become what they were. Rows that were changed since are
    conflicts, which stay as they are and are listed; so do rows that would leave a foreign key pointing nowhere, or
    whose unique values others have now.
  - A table beside, in the schema C(recovered_<incident>), says of each row what was done with it, or why not. It stays,
    with the rows of before and after, until somebody removes it; out of these O(state=taken_back) undoes the undo.
  - Triggers, event triggers and foreign keys of production do not act on it. The rows are touched as the owner of their
    table. Sequences stay as they are.
  - Whoever writes one of these rows meanwhile waits until all are done. Where triggers fire even in sessions that are
    replicas (C(ENABLE ALWAYS)), whoever writes to such a table waits.
  - A table needs a primary key, and the columns that it had.
  - Killed and run again, it goes on; what is done is in a journal in the schema of the incident.
options:
  instance_password:
    description:
      - Password for the side instance, where it asks for one.
    type: str
  database:
    description:
      - Name of the database.
    type: str
    required: true
  incident:
    description:
      - Identifier of the incident. It names the schema C(recovered_<incident>).
    type: str
    required: true
  relations:
    description:
      - OIDs of the tables, as the side instance kept them.
    type: list
    elements: int
    default: []
  state:
    description:
      - V(previewed) brings the rows of before and after, and tells what would be done. Production's tables are only
        read, so that what keys and checks of now refuse is known only when it is done.
      - V(undone) takes the transaction back.
      - V(taken_back) takes back what V(undone) did, where the rows are still as that left them. It needs no instance.
    type: str
    choices: [previewed, undone, taken_back]
    default: undone
  progress_file:
    description:
      - File that holds one JSON object with C(at), C(what), C(done), C(total) and C(unit) while the module works.
      - It is removed at the end.
    type: path
  bin_dir:
    description:
      - Directory of the client programs (C(psql)) of production's major version, on the host the module runs on.
      - Without it they are looked for where the distributions put them.
    type: path
attributes:
  check_mode:
    support: none
    description: O(state=previewed) tells what would be done.
  diff_mode:
    support: none
    description: What is done with each row is in the table beside.
extends_documentation_fragment:
  - dbre.recovery.contracts.instance
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_side_instance
  - module: dbre.recovery.postgresql_change_history_info
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Take back what transaction 741 did to the prices
  dbre.recovery.postgresql_transaction_undo:
    instance: "{{ recovery_source_instance }}"
    database: shop
    incident: "4711"
    relations: [16485]
  become: true
  become_user: postgres
  register: undo

- name: It was right after all
  dbre.recovery.postgresql_transaction_undo:
    database: shop
    incident: "4711"
    state: taken_back
  become: true
  become_user: postgres
"""

RETURN = r"""
relations:
  description:
    - The tables. RV(ignore:reverted) is how many rows of each operation were taken back, RV(ignore:already) how many
      were as before in any case, RV(ignore:conflicts) how many stayed for what reason, with a RV(ignore:sample) of
      them, each with its key, the operation, and the transaction that wrote it last. C(preview) is the table beside.
  returned: success
  type: list
  elements: dict
  sample: [{"schema": "public", "name": "prices", "oid": 16485, "action": "undo", "rows": 996944, "key": ["id"],
    "reverted": {"insert": 0, "update": 996944, "delete": 0}, "already": 0, "conflicts": {"changed since": 3056},
    "sample": [{"key": ["17"], "operation": "UPDATE", "conflict": "changed since", "later_xid": 760}],
    "preview": "recovered_4711.prices_undo"}]
left_to_do:
  description:
    - The conflicts, each with C(type), C(object), C(reason), C(command), which shows them, and C(rows), their number.
  returned: success
  type: list
  elements: dict
  sample: []
kept:
  description: Tables that stay beside production's until the operator removes them.
  returned: success
  type: list
  elements: dict
  sample: [{"type": "table", "object": "recovered_4711.prices_before", "reason": "rows", "command": "DROP TABLE ..."}]
seconds:
  description: How long it took.
  returned: success
  type: dict
  sample: {"undo": 21.4}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import INSTANCE_OPTIONS
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import masked
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production, open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.undo import Undo


def run(params: dict[str, Any]) -> dict[str, Any]:
    asked = params["database"], params["incident"], params["relations"], Progress(params["progress_file"])
    if params["state"] == "taken_back":
        with open_production(login_of(params), params["bin_dir"], params["incident"]) as production:
            return Undo(production, *asked).take_back()
    with open_servers(
        login_of(params), params["bin_dir"], params["incident"], params["instance"], params["instance_password"]
    ) as (production, side):
        undo = Undo(production, *asked, params["instance"].get("reached"))
        return undo.preview(side) if params["state"] == "previewed" else undo.carry_out(side)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "instance": {"type": "dict", "options": INSTANCE_OPTIONS},
            "instance_password": {"type": "str", "no_log": True},
            "database": {"type": "str", "required": True},
            "incident": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "int", "default": []},
            "state": {"type": "str", "choices": ["previewed", "undone", "taken_back"], "default": "undone"},
            "progress_file": {"type": "path"},
            "bin_dir": {"type": "path"},
        },
        required_if=[("state", "previewed", ["instance"]), ("state", "undone", ["instance"])],
    )
    check_arguments(module)
    try:
        result = run(module.params)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**masked(result))


if __name__ == "__main__":
    main()
