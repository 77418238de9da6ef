#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_recovery_impact_info
short_description: See what production has to spare for a recovery, and who would notice it
version_added: "0.1.0"
description:
  - Looks at production before anything is restored - connections, disks, archiving, replication slots and standbys,
    event triggers, publications and their subscribers.
  - Event triggers that would fire on the work of a recovery are refused here, with the command that helps. From
    PostgreSQL 17 on a session keeps all from firing in itself, before that those that are merely enabled.
  - A name without quotes that fits two relations or schemas by case is refused here, too, since a shell or Ansible may
    have taken its quotes away.
options:
  database:
    description:
      - Database in which something was lost. One that is gone has no event triggers and no publications.
    type: str
    required: true
  relations:
    description:
      - What was lost, written as in SQL. Each element may be a comma-separated list.
    type: list
    elements: str
    default: []
  schemas:
    description:
      - Schemas that were lost, or lost tables, written as in SQL.
    type: list
    elements: str
    default: []
  load:
    description:
      - What is done with tables that exist.
      - With V(swap) the tables, or without any the whole database, are exchanged for what they were. Refused here where
        that cannot be.
    type: str
    choices: [beside, merge, replace, swap]
    default: beside
  incident:
    description:
      - Identifier of the incident, which names the sessions.
    type: str
    required: true
  parallel:
    description:
      - Number of tables that will be loaded at a time. V(0) is the number of processors.
    type: int
    default: 0
  max_lag:
    description:
      - Seconds that a standby may be behind while rows are loaded, as with
        M(dbre.recovery.postgresql_table_recovery). Handed on in RV(impact).
    type: float
    default: 60
  bin_dir:
    description:
      - Directory of the client programs. Without it they are looked for where the distributions put them.
    type: path
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
- name: See what a recovery of the orders would touch
  dbre.recovery.postgresql_recovery_impact_info:
    database: shop
    relations: [public.orders]
    incident: "4711"
  become: true
  become_user: postgres
  register: touched
"""

RETURN = r"""
impact:
  description: What was found. Numbers of C(bytes) and C(seconds); null where something cannot be known.
  returned: success
  type: dict
  contains:
    limits:
      description:
        - C(connections) - the C(max), those C(reserved) for superusers, those C(used) by others, and how many are
          C(wanted) at most.
        - C(disk) - what is free for the data directory, each tablespace and WAL. Empty over the network.
        - C(archive) - its C(mode), segments C(waiting), and whether it is C(failing).
        - C(slots) with the WAL that each keeps, and C(max_slot_wal_keep_bytes), null without a limit.
        - C(standbys) that are connected, with the WAL they have not received, or not replayed, yet.
      type: dict
      sample:
        connections: {"max": 100, "reserved": 3, "used": 12, "wanted": 4}
        disk: [{"path": "/var/lib/postgresql/15/main", "device": 65025, "free": 9000000000, "total": 20000000000}]
        archive: {"mode": "on", "failed": null, "failing": false, "segment_bytes": 16777216, "waiting": 0}
        slots: [{"name": "standby1", "type": "physical", "active": true, "wal_status": "reserved", "kept_bytes": 0}]
        max_slot_wal_keep_bytes: null
        standbys: [{"name": "standby1", "address": "10.0.0.2", "state": "streaming", "sync_state": "async",
          "not_received_bytes": 0, "not_replayed_bytes": 0, "replay_lag_seconds": null}]
    event_triggers:
      description: Event triggers that are enabled, what each C(calls), and whether it C(fires) on this (none does).
      type: list
      elements: dict
      sample:
        - {"name": "audit", "event": "ddl_command_end", "calls": "public.audit", "state": "ENABLE", "fires": false}
    replication:
      description:
        - The C(publications) that concern what was named, and the logical replication C(slots) of the database with
          their C(subscriber).
      type: dict
      sample: {"publications": [], "slots": []}
    database:
      description: Size of the database in C(bytes), and what is C(free) on the disk that it is on.
      type: dict
      sample: {"bytes": 1073741824, "free": 9000000000}
    holding:
      description: With O(load=swap) and O(relations), what hangs on the tables and becomes of it, in lines for people.
      type: list
      elements: str
      sample: ["publication all_orders: has the table as it was"]
    exchange:
      description:
        - With O(load=swap) and no O(relations), what the database is C(kept_as), its C(sessions) by role and
          application, which are ended, its size now in C(bytes), and the C(disk) that a second one goes on.
        - Logical replication C(slots) and C(subscriptions) of the database, which stay with the one that is kept, and
          C(publications) in it.
      type: dict
      sample:
        kept_as: shop_damaged_4711
        sessions: [{"role": "shop_app", "application": "web", "sessions": 12}]
        slots: []
        subscriptions: []
        publications: []
        bytes: 1073741824
        disk: {"path": "/var/lib/postgresql/15/main", "device": 65025, "free": 9000000000, "total": 20000000000}
    max_lag:
      description: The limit that was given, in seconds.
      type: float
      sample: 60
    relations:
      description: What was named and exists, with partitions, and about how large it is with TOAST and indexes.
      type: list
      elements: dict
      sample: [{"schema": "public", "name": "lines", "rows_estimate": 2000, "bytes": 212992}]
    keyless:
      description: Names of those that have no primary key, or a generated one, so that no row can be told from another.
      type: list
      elements: str
      sample: []
    without_key:
      description: Those that have no primary key at all, into which no rows can be merged.
      type: list
      elements: dict
      sample: []
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.impact import impact_on


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "database": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "str", "default": []},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "load": {"type": "str", "choices": ["beside", "merge", "replace", "swap"], "default": "beside"},
            "incident": {"type": "str", "required": True},
            "parallel": {"type": "int", "default": 0},
            "max_lag": {"type": "float", "default": 60},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        with open_production(login_of(params), params["bin_dir"], params["incident"]) as production:
            found = impact_on(
                production,
                params["database"],
                params["relations"],
                params["schemas"],
                params["load"],
                params["parallel"] or len(os.sched_getaffinity(0)),
                params["incident"],
            )
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=False, impact={**found, "max_lag": params["max_lag"]})


if __name__ == "__main__":
    main()
