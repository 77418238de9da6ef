#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_dump_side_instance
short_description: Make a recovered instance out of a dump of pg_dump
version_added: "0.1.0"
description:
  - Makes a throw-away PostgreSQL instance from a custom-format file or a directory dump, with the definitions of the
    whole database and the rows of the tables that were lost. Without O(relations) and O(schemas) it restores all rows.
  - It is precise to the dump only. What was committed after the dump was begun is not in it; C(instance.reached) says
    when that was.
  - What is in the dump is made as its owner, so that code in it (checks, domains, generated columns) never runs as a
    superuser. What its owner cannot make any more ends the restore and is named.
  - The instance is caged as those of M(dbre.recovery.postgresql_side_instance) are, and lives below O(path) alone.
  - An instance that a killed run left half made is made again from the beginning; a finished one is kept, or started.
  - Run it as the operating system user of PostgreSQL, never as root.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  state:
    description:
      - V(present) makes sure that the instance runs. V(absent) stops it and removes everything below O(path).
    type: str
    choices: [present, absent]
    default: present
  dump:
    description:
      - The dump on this host, a file of C(pg_dump -Fc) or a directory of C(pg_dump -Fd), of a whole database.
      - Required with O(state=present).
    type: path
  path:
    description:
      - Directory of the instance, at most 87 bytes. It must be empty, missing, or hold what an earlier run made.
    type: path
    required: true
  database:
    description:
      - Name of the database in production. The restored one gets this name, whatever the dump calls it.
      - Required with O(state=present).
    type: str
  relations:
    description:
      - Tables whose rows are restored, written as in SQL, with their partitions and the tables that inherit from them.
    type: list
    elements: str
    default: []
  schemas:
    description:
      - Schemas the rows of whose tables are restored, written as in SQL.
    type: list
    elements: str
    default: []
  roles:
    description:
      - Names of the roles that production has. They are made without login, so that owners and grants are kept.
      - Roles that only the dump names are made too. C(plan.roles_unknown) lists them; it is null without this list.
    type: list
    elements: str
    default: []
  tablespaces:
    description:
      - Names of the tablespaces that production has. They are made below O(path), as are those only the dump names.
    type: list
    elements: str
    default: []
  major_version:
    description:
      - Major version of production, whose programs are used here.
      - V(0) is the version of the server the dump was made from.
      - A dump of a newer server or by a newer pg_dump is refused.
    type: int
    default: 0
  utc_offset:
    description:
      - Numeric UTC offset of the dumping host's clock, such as V(+02:00). Dumps record a time without zone.
      - Without it the time zone of this host counts, and a time after the dump was written is refused.
    type: str
  jobs:
    description:
      - Parallel jobs of pg_restore. V(0) is one for each processor.
    type: int
    default: 0
  port:
    description:
      - Port of the instance. V(0) takes one that is free.
    type: int
    default: 0
  incident:
    description:
      - Id of the incident the instance belongs to. That of another incident is never touched.
    type: str
    default: ""
  bin_dir:
    description:
      - Directory of PostgreSQL's programs; found by major version when not given.
    type: path
  client:
    description:
      - One host that may connect over the network, by TLS and password, when production is on another host.
    type: dict
    suboptions:
      address:
        description:
          - Address, or network in CIDR notation, of the client.
        type: str
        required: true
      user:
        description:
          - Role that the client connects as; it may read everything.
        type: str
        required: true
      password:
        description:
          - Password of O(client.user).
        type: str
        required: true
      database:
        description:
          - Database the client may connect to.
        type: str
        required: true
      listen:
        description:
          - Address of this host that the instance listens on.
        type: str
        required: true
attributes:
  check_mode:
    description: Returns the plan, and refuses what cannot work.
    support: full
  diff_mode:
    description: Shows the state of the instance before and after.
    support: full
requirements:
  - psycopg2 on the host the module runs on
  - openssl on the host the module runs on, for O(client)
seealso:
  - module: dbre.recovery.postgresql_side_instance
"""

EXAMPLES = r"""
- name: Bring back a table from last night's dump, beside production
  dbre.recovery.postgresql_dump_side_instance:
    dump: /var/backups/shop.dump
    path: /var/lib/postgresql/dbre-recovery
    database: shop
    relations: [public.orders]
    utc_offset: "+01:00"
  become: true
  become_user: postgres

- name: Remove the instance
  dbre.recovery.postgresql_dump_side_instance:
    path: /var/lib/postgresql/dbre-recovery
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
plan:
  description:
    - What the dump is and what is, or would be, made of it. Sizes in bytes. C(disk.needed) is an estimate;
      C(disk.known) is false when the dump was written into a pipe and so does not say where each table is.
    - C(shown) is what people are shown of the plan, each with a C(label) and C(lines).
  returned: when O(state=present)
  type: dict
  sample:
    dump:
      path: /var/backups/shop.dump
      format: custom
      compression: gzip
      size: 745342
      database: shop
      server_version: "15.18"
      pg_dump_version: "15.18"
      created: "2026-11-24T02:00:01+01:00"
      age_seconds: 30123
      zone: utc_offset
    precision: Everything committed after the dump was begun is not in it.
    relations: [{schema: public, name: orders, type: table}]
    tables_with_rows: [{schema: public, name: orders, type: table, bytes_in_dump: 664441}]
    whole_database: false
    left_out: [SUBSCRIPTION sub]
    disk:
      path: /var/lib/postgresql
      free: 72006008832
      estimate: true
      in_dump: 664441
      needed: 140862138
      known: true
    encoding: UTF8
    lc_collate: C.UTF-8
    lc_ctype: C.UTF-8
    roles_unknown: []
    tablespaces: [fast]
    earlier: null
    jobs: 2
    beside: []
    path: /var/lib/postgresql/dbre-recovery
    port: 0
    shown: [{label: Dump, lines: ["/var/backups/shop.dump (custom, 745 kB), begun 2026-11-24 02:00:01+01:00"]}]
instance:
  description:
    - The recovered instance; it has no position in WAL, and its time is when the dump was begun.
    - C(isolation) is what was read back of the running server that keeps it from production, and when.
  returned: when O(state=present) and not in check mode
  type: dict
  sample:
    source: dump
    host: null
    port: 44993
    socket: /var/lib/postgresql/dbre-recovery/run
    database: shop
    state: promoted
    reached: {lsn: null, time: "2026-11-24T02:00:01+01:00", timeline: null}
    isolation: [{what: archive_mode, value: "off", read: "2026-11-23T21:52:49.020+00:00"}]
    path: /var/lib/postgresql/dbre-recovery
    data_directory: /var/lib/postgresql/dbre-recovery/data
    version_num: 150018
    system_identifier: "7711491627996320996"
    user: postgres
    own_oids: true
proof:
  description: Settings read back from the running instance, by which it is isolated.
  returned: when O(state=present) and not in check mode
  type: dict
  sample: {archive_mode: "off", listen_addresses: "", slots: 0, wal_to_archive: 0}
restore:
  description: How long each step of pg_restore took, in seconds, when the instance was made by this run.
  returned: when O(state=present) and not in check mode
  type: dict
  sample: {definitions: 0.17, keys: 0.07, rows: 4.118, indexes: 2.119}
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_instance import Asked, LogicalRestore
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state

CLIENT = {
    "address": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "database": {"type": "str", "required": True},
    "listen": {"type": "str", "required": True},
}


def present(module: AnsibleModule) -> dict[str, Any]:
    restore = LogicalRestore(pick(Asked, module.params))
    plan = restore.plan()
    before = {"instance": plan["earlier"] or "absent"}
    if module.check_mode:
        changed = plan["earlier"] != "restored"
        return {"changed": changed, "plan": plan, "diff": {"before": before, "after": {"instance": "restored"}}}
    instance, proof, changed = restore.ensure()
    return {
        "changed": changed,
        "plan": plan,
        "instance": instance,
        "proof": proof,
        "restore": restore.seconds,
        "diff": {"before": before, "after": {"instance": "restored"}},
    }


def absent(module: AnsibleModule) -> dict[str, Any]:
    result = ensure_state(SideInstance(module.params["path"]), "absent", check_mode=module.check_mode)
    diff = {"before": {"instance": result["state"]}, "after": {"instance": "absent"}}
    return {"changed": result["changed"], "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "dump": {"type": "path"},
            "path": {"type": "path", "required": True},
            "database": {"type": "str"},
            "relations": {"type": "list", "elements": "str", "default": []},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "roles": {"type": "list", "elements": "str", "default": []},
            "tablespaces": {"type": "list", "elements": "str", "default": []},
            "major_version": {"type": "int", "default": 0},
            "utc_offset": {"type": "str"},
            "jobs": {"type": "int", "default": 0},
            "port": {"type": "int", "default": 0},
            "incident": {"type": "str", "default": ""},
            "bin_dir": {"type": "path"},
            "client": {"type": "dict", "options": CLIENT},
        },
        required_if=[("state", "present", ["dump", "database"])],
        supports_check_mode=True,
    )
    check_arguments(module)
    if os.geteuid() == 0:
        module.fail_json(
            msg="PostgreSQL does not run as root. Nothing was changed. Run this as its operating system user "
            "(become_user: postgres)."
        )
    try:
        module.exit_json(**(present(module) if module.params["state"] == "present" else absent(module)))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Production was not touched.")


if __name__ == "__main__":
    main()
