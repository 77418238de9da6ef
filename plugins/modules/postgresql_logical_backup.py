#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_logical_backup
short_description: Take a logical backup of a database or of the globals
version_added: "0.1.0"
description:
  - Takes a dump with C(pg_dump), or of roles and tablespaces with C(pg_dumpall --globals-only), into a folder of its
    own below O(path). It is written under another name, verified, summed and only then put in its place, so a dump
    that fails leaves every earlier one as it is. Retention follows a success only.
  - Below O(path) each O(name) has a folder, and in it each dump a folder named by the UTC time it was begun, with the
    dump, C(dump.json) and C(SHA256SUMS). C(catalogue.json) in O(path) lists them all.
  - With O(max_age) a dump is taken only where no recent one exists, so that a second run changes nothing.
  - A dump that waits for a lock for ten minutes fails. Two dumps of one database never run at once; the second waits.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  database:
    description:
      - Database to dump.
    type: str
  globals:
    description:
      - Dump the globals instead, with the passwords of the roles as the server stores them.
    type: bool
    default: false
  name:
    description:
      - Name of the set that the dump belongs to; retention and O(max_age) look at this set only. Letters without
        accents, digits, C(_), C(-) and C(.).
      - By default the name of the database, or C(globals).
    type: str
  path:
    description:
      - Base directory. What is missing of it is made, for its owner only.
    type: path
    required: true
  format:
    description:
      - V(custom) is one compressed file, V(directory) one compressed file for each table, V(plain) an SQL script.
      - The globals are always a script.
      - A script with functions or domains of roles that are no superusers, or with tables that use them, is refused by
        M(dbre.recovery.postgresql_dump_restore).
    type: str
    choices: [custom, directory, plain]
    default: custom
  jobs:
    description:
      - Parallel jobs, with O(format=directory) only.
    type: int
    default: 1
  compress:
    description:
      - Compression as C(pg_dump --compress) takes it, such as V(5), or from PostgreSQL 16 on V(zstd:3) or V(lz4).
      - By default that of C(pg_dump). Not with O(format=plain).
    type: str
  schema_only:
    description:
      - Definitions without rows.
    type: bool
    default: false
  tables:
    description:
      - Only these tables, with their partitions and the tables that inherit from them. Names as in SQL.
      - Such a dump holds neither types nor functions that the tables need.
    type: list
    elements: str
    default: []
  exclude_tables:
    description:
      - Tables whose rows are left out, with those of their partitions. Names as in SQL. Their definitions are in the
        dump, as what refers to them could not be restored otherwise.
    type: list
    elements: str
    default: []
  keep_days:
    description:
      - Days to keep the dumps of the set.
      - With O(keep_count) too, a dump goes only when both let it. The newest good one never goes. With neither, none
        goes.
    type: float
  keep_count:
    description:
      - Good dumps of the set to keep, however old.
    type: int
  max_age:
    description:
      - Do nothing when a good dump of the set was begun no longer ago than this.
      - Seconds, or a number with V(s), V(m), V(h), V(d) or V(w).
    type: str
extends_documentation_fragment:
  - dbre.recovery.postgresql_local
attributes:
  check_mode:
    description: Says whether a dump would be taken and which would be removed.
    support: full
  diff_mode:
    description: Shows the ids of the set's dumps before and after.
    support: full
seealso:
  - module: dbre.recovery.postgresql_dump_restore
"""

EXAMPLES = r"""
- name: Ensure a dump of the database shop that is younger than a day, in parallel
  dbre.recovery.postgresql_logical_backup:
    database: shop
    path: /var/backups/postgresql-logical
    format: directory
    jobs: 4
    max_age: 24h
    keep_days: 14
    keep_count: 7
  become: true
  become_user: postgres

- name: Dump two tables before a change
  dbre.recovery.postgresql_logical_backup:
    database: shop
    name: shop-before-release
    path: /var/backups/postgresql-logical
    tables: [public.orders, '"Sales"."Order Lines"']
  become: true
  become_user: postgres

- name: Dump roles and tablespaces
  dbre.recovery.postgresql_logical_backup:
    globals: true
    path: /var/backups/postgresql-logical
  become: true
  become_user: postgres
"""

RETURN = r"""
dump:
  description:
    - The dump that was taken, or the recent one that made it unnecessary. V(null) in check mode when one would be
      taken.
    - RV(ignore:seconds) is how long it took, its sizes are in bytes, its times are UTC, RV(ignore:lsn) is the server's
      position in WAL when it was begun. The names of the files are relative to RV(ignore:path).
  returned: success
  type: dict
  sample:
    id: 20261125T020003Z
    name: shop
    database: shop
    kind: database
    format: directory
    tables: []
    without_rows: []
    path: /var/backups/postgresql-logical/shop/20261125T020003Z
    dump: shop.dir
    host: db1
    port: 5432
    started: "2026-11-25T02:00:03+00:00"
    ended: "2026-11-25T02:04:41+00:00"
    seconds: 278.2
    bytes: 745342
    server_version: "17.6 (Debian 17.6-0+deb13u1)"
    pg_dump_version: "17.6"
    lsn: 0/3008940
    warnings: []
    files:
      - name: shop.dir/toc.dat
        bytes: 4382
        sha256: 0f343b0931126a20f133d67c2b018a3b5e1f2d7b9f9d7d8a5f6a0f9d2c3b4a59
removed:
  description: Ids of the dumps that were, or would be, removed.
  returned: success
  type: list
  elements: str
  sample: [20261110T020001Z]
"""

import os
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_backup import (
    DumpSet,
    LogicalBackup,
    ended_by_signal,
)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Take the dump where one is needed and return the module's result."""
    backup = LogicalBackup(pick(DumpSet, module.params))
    now = datetime.now(timezone.utc)
    before = [dump["id"] for dump in backup.dumps()]
    if module.params["max_age"] is not None:
        recent = backup.recent(parse_age(module.params["max_age"]), now)
        if recent:
            return {
                "changed": False,
                "dump": {k: v for k, v in recent.items() if k not in ("needs", "whole")},
                "removed": [],
            }
    done: dict[str, Any] = {"dump": None, "removed": backup.would_go(now)}
    if not module.check_mode:
        progress = Progress(os.path.join(module.params["path"], "progress.json"))
        with ended_by_signal(), progress.watching(f"dumped {backup.what}", backup.written):
            done = backup.take()
    coming = done["dump"]["id"] if done["dump"] else "a new one"
    after = [known for known in before if known not in done["removed"]] + [coming]
    return {"changed": True, **done, "diff": {"before": {"dumps": before}, "after": {"dumps": after}}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str"},
            "globals": {"type": "bool", "default": False},
            "name": {"type": "str"},
            "path": {"type": "path", "required": True},
            "format": {"type": "str", "choices": ["custom", "directory", "plain"], "default": "custom"},
            "jobs": {"type": "int", "default": 1},
            "compress": {"type": "str"},
            "schema_only": {"type": "bool", "default": False},
            "tables": {"type": "list", "elements": "str", "default": []},
            "exclude_tables": {"type": "list", "elements": "str", "default": []},
            "keep_days": {"type": "float"},
            "keep_count": {"type": "int"},
            "max_age": {"type": "str"},
            "login_unix_socket": {"type": "path"},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str"},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**ensure(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Earlier dumps are as they were.")


if __name__ == "__main__":
    main()
