#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_table_recovery
short_description: Put back what a load plan says, proved against the recovered instance
version_added: "0.1.0"
description:
  - Carries out a load plan of M(dbre.recovery.postgresql_lost_objects_info), on the production host or over the
    network, reading from the recovered instance by C(COPY).
  - Missing tables are loaded in the schema C(recovered_<incident>), several at a time, with their indexes, each in one
    transaction that ends only after rows and checksum were compared with the recovered instance. Then, in one more
    transaction, everything appears at its place - tables, views, triggers, policies, rules, grants, publications,
    foreign keys, sequences.
  - Foreign keys are put back C(NOT VALID) and validated afterwards, so that production keeps writing. One that
    production's rows do not allow (any more) stays C(NOT VALID) and is reported with the rows.
  - Sequences never go backwards.
  - A whole database that exists (C(load=swap)) is loaded beside, as C(recovered_<incident>). Then, in one transaction,
    it gets the name, with the settings and grants that it had, and the one in use is kept under the name that the plan
    gives it. Its sessions are ended for that; new ones wait meanwhile. What keeps applications from writing
    (M(dbre.recovery.postgresql_containment)) goes on under the name.
  - Tables that exist (C(load=swap) with relations) are loaded beside, as they were. Then, in one transaction, those of
    now go into the schema C(damaged_<incident>) with the views and functions on them, and the recovered ones get their
    places. Others wait for these tables meanwhile, and for a moment in the beginning, in which they are made.
  - Killed and run again with the same plan, it goes on; what is done is in a journal in the schema of the incident.
  - Runs as a superuser, or as a role that may become the owners of what was lost (C(CREATEROLE) until PostgreSQL 15,
    C(ADMIN OPTION) since 16), as the master user of a managed service. It is a member of them from the first step to
    the last, and gives that back exactly, also after a run that was killed.
  - Where row security binds even the owner of a table, only a superuser or a role with C(BYPASSRLS) sees all rows. For
    any other, it is lifted inside of the transactions that need them, which locks such a table meanwhile. A foreign key
    that would lock a table in use for its validation is left C(NOT VALID) and reported with the commands.
  - Sessions set C(dbre.allow_drop=on), the way through this collection's drop
    protection.
options:
  instance_password:
    description:
      - Password for the recovered instance, where it asks for one.
    type: str
  parallel:
    description:
      - Number of tables loaded at a time. The default is the number of processors.
    type: int
  maintenance_work_mem:
    description:
      - Memory for building indexes, for each of O(parallel) sessions, as PostgreSQL writes it (V(512MB)).
      - The default shares a quarter of the host's free memory among them, between 64 MB and 2 GB each. Over the
        network, it shares a quarter of production's C(shared_buffers).
    type: str
  max_lag:
    description:
      - Seconds that a physical standby may be behind while rows are loaded. Loading pauses, between blocks of rows and
        between tables, while one is behind by more. V(0) never waits.
      - Behind is how long ago that was written which the standby has not received, or not replayed, yet.
      - Replay that was more than 16 MB behind when loading began, or does not move for 60 seconds (delayed, paused), is
        not waited for, only what such a standby receives is. One run waits for 600 seconds in all.
    type: float
    default: 60
  progress_file:
    description:
      - File that holds one JSON object with C(at), C(what), C(done), C(total) and C(unit) while the module works.
      - It is removed at the end.
    type: path
  database:
    description:
      - Name of the database to clean up. Required with O(state=absent) and O(state=taken_back).
    type: str
  incident:
    description:
      - Identifier of the incident to clean up. Required with O(state=absent) and O(state=taken_back).
    type: str
  state:
    description:
      - V(present) puts back what was lost. It needs O(instance) and O(load_plan).
      - V(absent) removes what a recovery left in staging. Copies kept for the operator stay, with the schema they are
        in, and are returned.
      - V(taken_back) gives tables that C(load=swap) has put into C(damaged_<incident>) their places again, with views,
        functions and foreign keys. The recovered ones are kept in C(replaced_<incident>), with all written since.
    type: str
    choices: [present, absent, taken_back]
    default: present
  bin_dir:
    description:
      - Directory of the client programs (C(pg_dump), C(pg_restore), C(psql)) of production's major version, on the host
        the module runs on. For a production over the network (O(login_host)), a newer major version will do.
      - Without it they are looked for where the distributions put them.
    type: path
attributes:
  check_mode:
    support: full
    description: Says whether anything would be changed.
  diff_mode:
    support: none
    description: What is put back is in the load plan.
extends_documentation_fragment:
  - dbre.recovery.contracts.instance
  - dbre.recovery.contracts.load_plan
  - dbre.recovery.postgresql
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Put back what was lost
  dbre.recovery.postgresql_table_recovery:
    instance: "{{ recovery_source_instance }}"
    load_plan: "{{ lost.load_plan }}"
  become: true
  become_user: postgres
  register: recovery

- name: It was right after all, so the tables from before the recovery serve again
  dbre.recovery.postgresql_table_recovery:
    database: shop
    incident: "4711"
    state: taken_back
  become: true
  become_user: postgres

- name: Remove the staging
  dbre.recovery.postgresql_table_recovery:
    database: shop
    incident: "4711"
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
relations:
  description: Tables that were loaded, with rows, checksums of both ends, and seconds of each step.
  returned: O(state=present)
  type: list
  elements: dict
  sample:
    - {"schema": "public", "name": "orders", "oid": 16484, "action": "place", "rows": 1000, "checksum_side": "42",
       "checksum_production": "42", "seconds": {"copy": 0.1, "index": 0.1, "verify": 0.1}}
fingerprints:
  description: Fingerprints of the tables in the recovered instance (C(recovered)) and in C(production).
  returned: O(state=present)
  type: dict
  sample: {"recovered": {}, "production": {}}
difference:
  description: What differs between the two, each with C(relation), C(property), C(recovered), C(production).
  returned: O(state=present)
  type: list
  elements: dict
  sample: []
merged:
  description:
    - What was merged, by table.
    - Rows that were C(inserted), rows that differ (C(differing)) and how many of them are as the transaction that did
      the damage left them (C(damaged)), rows that do not fit (C(not_fitting)) with the C(reasons) for that, each with
      its number of rows, C(newer_in_production), the C(table) beside that holds the rows that differ as they were, the
      C(not_fitting_table) with those that do not fit, and a C(sample) of their keys.
    - C(copied) is how many rows were brought from the recovered instance. Where the first column of the primary key is
      an integer, a UUID, a date or a timestamp, both tables are compared by ranges of it, and only rows of the ranges
      that differ are brought.
    - C(deleted_since) is how many of the inserted rows production had deleted on purpose after the incident, which
      come back as well. V(null) is not known.
  returned: O(state=present)
  type: dict
  sample: {"public.orders": {"inserted": 5000, "copied": 5104, "deleted_since": null, "differing": 0, "damaged": 0,
    "not_fitting": 0, "reasons": {}, "newer_in_production": 12, "table": null, "not_fitting_table": null,
    "key": ["id"], "sample": []}}
kept:
  description: Tables that stay beside production's until the operator removes them.
  returned: success
  type: list
  elements: dict
  sample: [{"type": "table", "object": "recovered_4711.orders", "reason": "copy", "command": "DROP TABLE ..."}]
exchange:
  description: With C(load=swap), C(kept_as), the C(sessions) that were ended, and the C(seconds) that new ones waited.
  returned: where a database was exchanged
  type: dict
  sample: {"kept_as": "shop_damaged_4711", "sessions": 12, "seconds": 0.2}
left_to_do:
  description:
    - What is left for people, each with C(type), C(object), C(reason) and C(command).
    - C(lost) says whether production lacks something that was there before the incident, C(rows) how many rows.
    - Of a copy beside, the commands that put it to use. Of rows that do not fit, the one that puts them back.
  returned: O(state=present) and O(state=taken_back)
  type: list
  elements: dict
  sample: []
seconds:
  description: Seconds of each step. C(copy), C(index) and C(verify) are sums over tables loaded side by side.
  returned: O(state=present)
  type: dict
  sample: {"stage": 0.2, "load": 1.4, "publish": 0.2, "validate": 0.1, "copy": 0.9, "index": 0.8, "verify": 0.2}
limits:
  description:
    - What the run took of production. C(wal_bytes) is the WAL written meanwhile, that of others included, C(sessions)
      the most sessions of ours at one time.
    - C(exchange) is RV(exchange) again.
    - C(waited_seconds) is how long loading paused since standbys were behind by more than C(max_lag), C(standbys) are
      those that were seen, with the most that each was behind, and why its replay was not waited for if it was not.
  returned: O(state=present)
  type: dict
  sample: {"wal_bytes": 1048576, "sessions": 4, "max_lag": 60, "waited_seconds": 0.0, "standbys":
    [{"name": "standby1 at 10.0.0.2", "most_lag_seconds": 0.4, "not_waited_for": null}]}
removed:
  description: Relations, schemas or databases that were removed (or would be).
  returned: O(state=absent)
  type: list
  elements: str
  sample: [recovered_4711.dbre_recovery_journal, recovered_4711]
back:
  description: What the recovery had put into its place already, and what stays there.
  returned: O(state=absent)
  type: list
  elements: str
  sample: [public.orders]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import (
    INSTANCE_OPTIONS,
    LOAD_PLAN_OPTIONS,
    load_plan,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import masked
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production, open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.damaged_database import make_recovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.remove import remove_staging
from ansible_collections.dbre.recovery.plugins.module_utils._tables.taken_back import take_back


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    if params["state"] == "absent":
        with open_production(login_of(params), params["bin_dir"], params["incident"]) as production:
            return remove_staging(production, params["database"], params["incident"], check_mode)
    if params["state"] == "taken_back":
        with open_production(login_of(params), params["bin_dir"], params["incident"]) as production:
            return take_back(production, params["database"], params["incident"], check_mode)
    progress, plan = Progress(params["progress_file"]), load_plan(params["load_plan"])
    with open_servers(
        login_of(params), params["bin_dir"], plan["incident"], params["instance"], params["instance_password"]
    ) as (production, side):
        context = Context(
            production,
            side,
            plan,
            parallel=params["parallel"],
            maintenance_work_mem=params["maintenance_work_mem"],
            progress=progress,
            max_lag=params["max_lag"],
        )
        recovery = make_recovery(context)
        if check_mode:
            return {"changed": not recovery.is_done()}
        try:
            return recovery.run()
        finally:
            progress.end()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "instance": {"type": "dict", "options": INSTANCE_OPTIONS},
            "instance_password": {"type": "str", "no_log": True},
            "load_plan": {"type": "dict", "options": LOAD_PLAN_OPTIONS},
            "parallel": {"type": "int"},
            "maintenance_work_mem": {"type": "str"},
            "max_lag": {"type": "float", "default": 60},
            "progress_file": {"type": "path"},
            "database": {"type": "str"},
            "incident": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent", "taken_back"], "default": "present"},
            "bin_dir": {"type": "path"},
        },
        required_if=[
            ("state", "present", ["instance", "load_plan"]),
            ("state", "absent", ["database", "incident"]),
            ("state", "taken_back", ["database", "incident"]),
        ],
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        result = run(module.params, module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(**masked(result))


if __name__ == "__main__":
    main()
