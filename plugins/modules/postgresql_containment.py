#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_containment
short_description: Keep applications from writing to a database, and let them again
version_added: "0.1.0"
description:
  - Ensures that applications do not write to a database while an incident is looked into and repaired, or that this
    is undone exactly.
  - C(read_only) sets C(default_transaction_read_only) for the database and ends the sessions that began before, so that
    applications connect again and read only. The value that was there before is kept at the end of the database's
    comment, as C([dbre.containment ...]), written in the same transaction, so that it can be put back even after the
    run was killed. Undoing it ends sessions once more, because a session keeps what it began with.
  - C(read_only) needs no superuser, but a role that owns the database or may become its owner, and C(pg_monitor) and
    C(pg_signal_backend) to end sessions of others, as the master user of a managed service has them.
  - C(read_only) is a guard against applications, not against people. Sessions of superusers are neither ended nor
    kept from writing, roles with a setting of their own escape (RV(containment.escaping_roles)), and a session can
    switch it off.
  - C(pgbouncer_pause) gives C(PAUSE) on PgBouncer's admin console, so that clients wait, and C(RESUME) to undo it.
    PgBouncer ends clients that wait longer than its C(query_wait_timeout), two minutes by default; C(0) lets them wait.
    PgBouncer does not tell who paused a database, so O(state=absent) resumes whoever paused it.
options:
  database:
    description:
      - Name of the database. With O(method=pgbouncer_pause), the name that clients of PgBouncer use.
    type: str
    required: true
  method:
    description:
      - How applications are kept from writing.
      - With V(pgbouncer_pause), O(login_host), O(login_port) and the other connection options lead to PgBouncer.
        The user must be one of its C(admin_users). O(login_db) is not used then.
    type: str
    choices: [read_only, pgbouncer_pause]
    required: true
  state:
    description:
      - V(present) contains, V(absent) puts back what was there before.
    type: str
    choices: [present, absent]
    default: present
  timeout:
    description:
      - Seconds to wait for sessions to end, or for C(PAUSE) to finish. When it takes longer, the module fails;
        a C(PAUSE) that has not finished is taken back with C(RESUME).
    type: float
    default: 30
attributes:
  check_mode:
    support: full
    description: Says what would be changed, and how many sessions would be ended at this moment.
  diff_mode:
    support: full
    description: Shows the setting before and after.
extends_documentation_fragment:
  - dbre.recovery.postgresql
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the database read-only for applications
  dbre.recovery.postgresql_containment:
    database: shop
    method: read_only
  become: true
  become_user: postgres

- name: Put back the setting that was there before
  dbre.recovery.postgresql_containment:
    database: shop
    method: read_only
    state: absent
  become: true
  become_user: postgres

- name: Let clients wait in PgBouncer
  dbre.recovery.postgresql_containment:
    database: shop
    method: pgbouncer_pause
    login_unix_socket: /var/run/postgresql
    login_port: 6432
    login_user: postgres
  become: true
  become_user: postgres
"""

RETURN = r"""
containment:
  description: The containment as it is now, read back from the server.
  returned: success
  type: dict
  contains:
    method:
      description: How applications are kept from writing.
      type: str
      sample: read_only
    database:
      description: Name of the database.
      type: str
      sample: shop
    active:
      description: Whether applications are contained.
      type: bool
      sample: true
    previous:
      description: What was there before the containment; V(null) when the database had no such setting.
      type: dict
      sample: {"default_transaction_read_only": null}
    sessions_ended:
      description: Sessions ended by this task, so that they connect again.
      returned: O(method=read_only)
      type: int
      sample: 12
    superuser_sessions:
      description: Sessions of superusers in the database, which are left alone and can write.
      returned: O(method=read_only)
      type: int
      sample: 1
    sessions_left:
      description:
        - Sessions of other roles that the connecting role may not end or not see. They can write until they end. Give
          it C(pg_signal_backend) and C(pg_monitor), and run again.
      returned: O(method=read_only)
      type: int
      sample: 0
    escaping_roles:
      description: Roles whose own setting of C(default_transaction_read_only) goes before the database's.
      returned: O(method=read_only)
      type: list
      elements: str
      sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import PgBouncerPause, ReadOnly
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def containment(params: dict[str, Any]) -> Any:
    if params["method"] == "read_only":
        return ReadOnly(connect(login_of(params)), params["database"], params["timeout"])

    def console() -> Any:
        # PgBouncer refuses startup options it does not know.
        return connect(login_of(params), "pgbouncer", options="")

    return PgBouncerPause(console, params["database"], params["timeout"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str", "required": True},
            "method": {"type": "str", "required": True, "choices": ["read_only", "pgbouncer_pause"]},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        contained = containment(module.params)
        act = contained.present if module.params["state"] == "present" else contained.absent
        with translated_errors():
            result = act(module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
