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
    applications connect again and read only. The value that was there before, and for which incident it is done, is
    kept at the end of the database's comment, as C([dbre.containment ...]), written before anything is set, so that it
    can be put back even after the run was killed. Undoing it ends sessions once more, because a session keeps what it
    began with.
  - With O(incident), the containment ends with its run. It is noted in the incident's record on the controller before
    it is set, and a process on the controller waits for the end of C(ansible-playbook); when that ends without undoing
    the containment (Ctrl-C, a closed terminal, a kill), the process undoes it. Of several incidents that contain the
    same database, the last one to let go lifts it.
  - C(read_only) needs no superuser, but a role that owns the database or may become its owner, and C(pg_monitor) and
    C(pg_signal_backend) to end sessions of others, as the master user of a managed service has them.
  - C(read_only) is a guard against applications, not against people. Sessions of superusers are neither ended nor
    kept from writing, roles with a setting of their own escape (RV(containment.escaping_roles)), and a session can
    switch it off.
  - C(pgbouncer_pause) gives C(PAUSE) on PgBouncer's admin console, so that clients wait, and C(RESUME) to undo it.
    PgBouncer ends clients that wait longer than its C(query_wait_timeout), two minutes by default; C(0) lets them wait.
    PgBouncer does not tell who paused a database, so that is kept in a file on its host, in O(marker_path). Without
    O(incident), O(state=absent) resumes whoever paused it. After O(limit) seconds a process on that host resumes it in
    any case.
options:
  database:
    description:
      - Name of the database. With O(method=pgbouncer_pause), the name that clients of PgBouncer use.
      - With O(state=absent), every database that is contained when this is left out; of O(incident), if that is given.
    type: str
  incident:
    description:
      - The incident that it is done for. With O(state=absent), what is there for another incident stays; without it,
        everything is undone, whoever did it.
    type: str
  incident_dir:
    description:
      - Folder on the controller that holds the records of all incidents.
    type: path
    default: incidents
  run:
    description:
      - The run that works on it (C(host), C(pid), C(start)). Given by the controller.
    type: dict
  before:
    description:
      - What was there before, as the record of the incident remembers it, for a database whose comment somebody
        replaced meanwhile. Given by the controller.
    type: dict
  marker_path:
    description:
      - Folder on PgBouncer's host for what tells that a database is paused by this module. Nobody but O(login_user)'s
        operating system user may be able to write to it; it is made when it is not there.
    type: path
    default: ~/.dbre-containment
  limit:
    description:
      - Seconds after which PgBouncer's clients go on in any case.
    type: float
    default: 3600
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
containments:
  description: Each that was undone, as RV(containment).
  returned: without O(database)
  type: list
  elements: dict
  sample: [{"method": "read_only", "database": "shop", "active": false, "held_by": []}]
faults:
  description: Databases whose marker cannot be read, and why. Without O(incident), that is an error.
  returned: without O(database)
  type: list
  elements: str
  sample: []
says:
  description: The same in words.
  returned: without O(database)
  type: list
  elements: str
  sample: [shop is no longer read-only (for table-drop-20261123T214000Z)]
containment:
  description: The containment as it is now, read back from the server.
  returned: with O(database)
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
    held_by:
      description: Other incidents that it is there for, too.
      type: list
      elements: str
      sample: []
    released:
      description: Incidents, or V("") for whoever gave none, that it is no longer there for.
      type: list
      elements: str
      sample: [table-drop-20261123T214000Z]
    stays_read_only:
      description: Whether the database was read-only before, and so is again.
      returned: O(method=read_only)
      type: bool
      sample: false
    until:
      description: When PgBouncer's clients go on in any case (ISO-8601, UTC).
      returned: O(method=pgbouncer_pause)
      type: str
      sample: "2026-11-23T22:40:00+00:00"
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

import time
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import ReadOnly, read_only_databases
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import Run, run_of
from ansible_collections.dbre.recovery.plugins.module_utils._guard.pause import (
    PauseMarkers,
    PgBouncerPause,
    paused_databases,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors


def containment(params: dict[str, Any], database: str) -> Any:
    """What contains one database."""
    run: Optional[Run] = run_of({**params["run"], "at": time.time()}) if params["run"] else None
    if params["method"] == "read_only":
        connection = connect(login_of(params))
        return ReadOnly(connection, database, params["timeout"], params["incident"], run, params["before"])

    def console() -> Any:
        # PgBouncer refuses startup options it does not know.
        return connect(login_of(params), "pgbouncer", options="")

    return PgBouncerPause(
        console, database, params["timeout"], markers(params), params["incident"], run, params["limit"]
    )


def markers(params: dict[str, Any]) -> PauseMarkers:
    """Where it is kept what is paused in this PgBouncer."""
    return PauseMarkers(
        params["marker_path"], f"{params['login_unix_socket'] or params['login_host'] or ''}:{params['login_port']}"
    )


def in_force(params: dict[str, Any]) -> list[dict[str, Any]]:
    """All that carries a marker there, by whatever incident."""
    if params["method"] == "pgbouncer_pause":
        return paused_databases(markers(params))
    connection = connect(login_of(params))
    try:
        return read_only_databases(connection)
    finally:
        connection.close()


def undo_all(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Undo what is in force for the incident, or for any, wherever it is found."""
    incident, done, changed, faults = params["incident"], [], False, []
    for found in in_force(params):
        if found["fault"]:
            faults.append(f"{found['database']}: {found['fault']}")
        elif incident is None or incident in [holder["incident"] for holder in found["held_by"]]:
            undone = containment(params, found["database"]).absent(check_mode)
            changed = changed or undone["changed"]
            done.append(undone["containment"])
    if faults and incident is None:
        raise RecoveryError(" ".join(faults), containments=done)
    return {"changed": changed, "containments": done, "faults": faults}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str"},
            "method": {"type": "str", "required": True, "choices": ["read_only", "pgbouncer_pause"]},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "timeout": {"type": "float", "default": 30},
            "incident": {"type": "str"},
            "incident_dir": {"type": "path", "default": "incidents"},
            "run": {"type": "dict"},
            "before": {"type": "dict"},
            "marker_path": {"type": "path", "default": "~/.dbre-containment"},
            "limit": {"type": "float", "default": 3600},
        },
        required_if=[("state", "present", ["database"])],
        supports_check_mode=True,
    )
    check_arguments(module)
    params, present = module.params, module.params["state"] == "present"
    try:
        with translated_errors():
            if params["database"] is None:
                result = undo_all(params, module.check_mode)
            else:
                contained = containment(params, params["database"])
                result = (contained.present if present else contained.absent)(module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
