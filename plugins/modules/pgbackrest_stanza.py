#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_stanza
short_description: Ensure that a pgBackRest stanza exists for this PostgreSQL server
version_added: "0.1.0"
description:
  - Makes the stanza where it is missing, and verifies that an existing one belongs to the running server, by
    system identifier and major version.
  - The stanza of another server is refused, unless O(upgrade) says that the server itself was upgraded.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  state:
    description:
      - The stanza is there.
    type: str
    choices: [present]
    default: present
  upgrade:
    description:
      - Whether an existing stanza may be moved on to a server with another system identifier or major version, as
        after C(pg_upgrade).
    type: bool
    default: false
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.pgbackrest) and C(group/dbre.recovery.postgresql) in C(module_defaults) to
        set defaults for this module.
    support: full
    membership:
      - dbre.recovery.pgbackrest
      - dbre.recovery.postgresql
  check_mode:
    description: Says whether the stanza would be made or upgraded, and refuses what would be refused.
    support: full
  diff_mode:
    description: Shows system identifier and version before and after.
    support: full
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.pgbackrest_check
"""

EXAMPLES = r"""
- name: Make the stanza of this server
  dbre.recovery.pgbackrest_stanza:
    stanza: main
  become: true
  become_user: postgres

- name: Move it on after pg_upgrade
  dbre.recovery.pgbackrest_stanza:
    stanza: main
    upgrade: true
  become: true
  become_user: postgres
"""

RETURN = r"""
action:
  description: What was needed (in check mode, what would be).
  returned: success
  type: str
  choices: [none, create, upgrade]
  sample: create
info:
  description: The stanza as dbre.recovery.pgbackrest_info returns it.
  returned: success
  type: dict
  sample: {"name": "main", "status": {"code": 2, "message": "no valid backups"}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import describe_stanza, stanza_action
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import current_databases
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    refuse_root,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)


def server_identity(params: dict[str, Any]) -> tuple[int, int]:
    """Return the running server's system identifier and major version."""
    connection = connect(login_of(params))
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT system_identifier, current_setting('server_version_num')::int / 10000 FROM pg_control_system()"
            )
            identifier, major = cursor.fetchone()
            return int(identifier), int(major)
    finally:
        connection.close()


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Bring the stanza to what the server needs and return the module's result."""
    refuse_root("stanza-create")
    pgbackrest = PgBackRest(module.run_command, **stanza_of(module.params))
    info = describe_stanza(pgbackrest)
    before = current_databases(info)
    if module.check_mode and not before:
        # The server may be still to come as well.
        return {"changed": True, "action": "create", "info": info}
    identifier, major = server_identity(module.params)
    action = stanza_action(info, identifier, major, module.params["upgrade"])
    if action != "none" and not module.check_mode:
        pgbackrest.run(f"stanza-{action}")
        info = describe_stanza(pgbackrest)
    wanted = [{"system_identifier": identifier, "version": str(major)}]
    known = [{key: entry[key] for key in ("system_identifier", "version")} for entry in before]
    diff = {"before": {"stanza": known}, "after": {"stanza": known if action == "none" else wanted}}
    return {"changed": action != "none", "action": action, "info": info, "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            **connection_argument_spec(),
            "state": {"type": "str", "choices": ["present"], "default": "present"},
            "upgrade": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**ensure(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
