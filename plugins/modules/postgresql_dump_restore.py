#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_dump_restore
short_description: Restore a logical backup into a database of a running server
version_added: "0.1.0"
description:
  - Restores a dump that dbre.recovery.postgresql_logical_backup took, of any format.
  - Before anything is touched it verifies every checksum, and refuses a dump of a newer PostgreSQL, and roles,
    tablespaces or extensions that the server lacks.
  - A database that does not exist is loaded under the name C(<name>_dbre_restoring), in parallel, analyzed, and gets
    its name, owner, settings and grants when it is complete. A failure leaves nothing of it.
  - Into a database that exists everything goes in one transaction, so a failure leaves it as it was. Its owner,
    settings and grants are kept.
  - What is in the dump is made as its owner, so that code in it (checks, domains, generated columns) never runs as a
    superuser. What its owner cannot make any more ends the restore and is named. A script is refused when roles that
    are no superusers own code in it, since only a superuser can run it.
  - While it is loaded nobody but superusers can connect to a new database.
  - Subscriptions come back disabled, as C(pg_dump) writes them.
  - A second run changes nothing, except with O(existing=replace).
  - To bring back single tables beside a damaged production use dbre.recovery.postgresql_dump_side_instance.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  dump:
    description:
      - Folder of the dump, as C(catalogue.json) names it.
    type: path
  database:
    description:
      - Name of the database to restore into. By default that of the dumped one.
    type: str
  existing:
    description:
      - What to do with a database of that name.
      - V(empty) restores into it if nothing is in it, and fails otherwise.
      - V(add) keeps what is in it and adds what is in the dump; fails when a table, view or sequence of the dump
        exists. All of it is one transaction. A foreign key to a table that is there keeps others from writing to that
        table from the moment the key is made until the end; what others hold is waited for a second, no longer.
      - V(replace) puts the dump in its place; the present one is kept as C(<name>_before_<UTC time>). Its sessions
        are ended when the restored one is complete, not before.
    type: str
    choices: [empty, add, replace]
    default: empty
  globals:
    description:
      - Folder of a dump of the globals, from which roles are made that the dump names and the server lacks, with
        passwords, settings and memberships. Roles that exist are not changed.
      - Without O(dump), all roles in it that the server lacks are made.
    type: path
  jobs:
    description:
      - Parallel jobs for a database that is new or replaced. V(0) is one for each processor. A script has one.
    type: int
    default: 0
extends_documentation_fragment:
  - dbre.recovery.postgresql_local
attributes:
  check_mode:
    description: Verifies the checksums, returns the plan, and refuses what cannot work.
    support: full
  diff_mode:
    description: Shows the database and the roles before and after.
    support: full
requirements:
  - psycopg2 on the host the module runs on
seealso:
  - module: dbre.recovery.postgresql_logical_backup
  - module: dbre.recovery.postgresql_dump_side_instance
"""

EXAMPLES = r"""
- name: Restore last night's dump as a new database beside the present one
  dbre.recovery.postgresql_dump_restore:
    dump: /var/backups/postgresql-logical/shop/20261125T020003Z
    database: shop_last_night
  become: true
  become_user: postgres

- name: Put it in the place of the present one, which is kept under another name
  dbre.recovery.postgresql_dump_restore:
    dump: /var/backups/postgresql-logical/shop/20261125T020003Z
    existing: replace
  become: true
  become_user: postgres

- name: Restore on a new server, with the roles that are missing there
  dbre.recovery.postgresql_dump_restore:
    dump: /var/backups/postgresql-logical/shop/20261125T020003Z
    globals: /var/backups/postgresql-logical/globals/20261125T014500Z
  become: true
  become_user: postgres
"""

RETURN = r"""
plan:
  description:
    - What was, or would be, done. RV(ignore:how) is C(new), C(empty), C(add), C(replace), C(done) when this dump was
      restored there before, or V(null) without a dump. RV(ignore:kept_as) is the name under which a replaced database
      is kept. Sizes in bytes.
  returned: success
  type: dict
  sample:
    database: shop
    how: replace
    dump:
      path: /var/backups/postgresql-logical/shop/20261125T020003Z
      database: shop
      kind: database
      format: directory
      started: "2026-11-25T02:00:03+00:00"
      bytes: 745342
    roles: [shop_app]
    schemas: []
    jobs: 4
    kept_as: shop_before_20261125093012
    disk: {path: /var/lib/postgresql/17/main, free: 72006008832, dump: 745342}
seconds:
  description: How long each step took, in seconds.
  returned: success
  type: dict
  sample: {load: 41.2, analyze: 3.1, switch: 0.2}
missing_roles:
  description: Roles that the dump names and the server lacks.
  returned: on failure by missing roles
  type: list
  elements: str
  sample: [shop_app]
differing:
  description: Files of the dump whose checksum is not that of when it was taken.
  returned: on failure by checksums
  type: list
  elements: str
  sample: [shop.dir/3410.dat.gz]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_load import LogicalLoad
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of


def restore(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    load = LogicalLoad(
        login_of(params),
        dump=params["dump"],
        globals_dump=params["globals"],
        database=params["database"],
        existing=params["existing"],
        jobs=params["jobs"],
        bin_dir=params["bin_dir"],
    )
    if module.check_mode:
        plan = load.plan()
    else:
        progress = Progress(os.path.join(params["dump"] or params["globals"], "progress.json"))
        with progress.watching(f"loaded into {load.database}", load.loaded):
            plan = load.restore()
    changed = bool(plan["roles"]) or plan["how"] not in (None, "done")
    there = plan["database"] if plan["how"] not in ("new", None) else None
    diff = {
        "before": {"database": there, "kept_as": None, "roles_made": []},
        "after": {"database": plan["database"], "kept_as": plan["kept_as"], "roles_made": plan["roles"]},
    }
    return {"changed": changed, "plan": plan, "seconds": load.seconds, "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dump": {"type": "path"},
            "database": {"type": "str"},
            "existing": {"type": "str", "choices": ["empty", "add", "replace"], "default": "empty"},
            "globals": {"type": "path"},
            "jobs": {"type": "int", "default": 0},
            "login_unix_socket": {"type": "path"},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str"},
            "bin_dir": {"type": "path"},
        },
        required_one_of=[("dump", "globals")],
        supports_check_mode=True,
    )
    check_arguments(module)
    if os.geteuid() == 0:
        module.fail_json(
            msg="Restoring connects as the operating system user of PostgreSQL, not as root. Nothing was changed. "
            "Run this with 'become_user: postgres'."
        )
    try:
        module.exit_json(**restore(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. No database was changed.")


if __name__ == "__main__":
    main()
