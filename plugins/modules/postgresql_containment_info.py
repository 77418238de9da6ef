#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_containment_info
short_description: Tell what keeps applications from writing to databases
version_added: "0.1.0"
description:
  - Returns what M(dbre.recovery.postgresql_containment) has set and not undone, with the incident that it was done for,
    and for O(database) also a C(default_transaction_read_only) that somebody else has set.
  - Of each incident, RV(containments[].dead) says whether its run has ended, as far as the controller can see.
options:
  database:
    description:
      - Look at this database only.
    type: str
  method:
    description:
      - What to look for. With V(pgbouncer_pause), O(login_host) or O(login_unix_socket), and O(login_port), say which
        PgBouncer; no connection is made.
    type: str
    choices: [read_only, pgbouncer_pause]
    default: read_only
  marker_path:
    description:
      - As in M(dbre.recovery.postgresql_containment).
    type: path
    default: ~/.dbre-containment
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
- name: See what is contained on this server
  dbre.recovery.postgresql_containment_info:
  become: true
  become_user: postgres
  register: seen
"""

RETURN = r"""
containments:
  description: Each database that is contained, or read-only by a setting of somebody else.
  returned: success
  type: list
  elements: dict
  contains:
    method:
      description: How.
      type: str
      sample: read_only
    database:
      description: Name of the database.
      type: str
      sample: shop
    setting:
      description: The value of C(default_transaction_read_only) of the database, or V(PAUSE).
      type: str
      sample: "on"
    previous:
      description: What was there before.
      type: str
      sample:
    since:
      description: Since when (ISO-8601, UTC).
      type: str
      sample: "2026-11-23T21:40:00+00:00"
    held_by:
      description:
        - The incidents it was done for, each with the run that did it. Empty where nothing tells that this collection
          did it.
      type: list
      elements: dict
      sample: [{"incident": "table-drop-20261123T214000Z", "host": "ops1", "pid": 4711, "start": "...", "at": "..."}]
    dead:
      description: Of these incidents, those whose run has ended, as seen from this controller.
      type: list
      elements: str
      sample: []
    fault:
      description: Why what is found there cannot be read.
      type: str
      sample:
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import read_only_databases
from ansible_collections.dbre.recovery.plugins.module_utils._guard.pause import PauseMarkers, paused_databases
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def look(params: dict[str, Any]) -> list[dict[str, Any]]:
    if params["method"] == "pgbouncer_pause":
        pooler = f"{params['login_unix_socket'] or params['login_host'] or ''}:{params['login_port']}"
        return paused_databases(PauseMarkers(params["marker_path"], pooler), params["database"])
    connection = connect(login_of(params))
    try:
        with translated_errors():
            return read_only_databases(connection, params["database"])
    finally:
        connection.close()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str"},
            "method": {"type": "str", "default": "read_only", "choices": ["read_only", "pgbouncer_pause"]},
            "marker_path": {"type": "path", "default": "~/.dbre-containment"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(changed=False, containments=look(module.params))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
