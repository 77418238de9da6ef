#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_corruption_info
short_description: Locate corruption in a running PostgreSQL server
version_added: "0.1.0"
description:
  - Tells which relations are damaged, in which blocks, whether each is a table, TOAST, an index or the server's own
    catalogue, which backup is the newest one without the damage, and the smallest means against it.
  - Collations are looked at first. An index that was sorted by another version of a collation is to be rebuilt, and is
    not called damaged.
  - Then each page is read from disk, as the server would check it when it reads it. What the server has in memory does
    not hide it. A page that is just being written is read again. A page that the disk does not give is told as damaged,
    and so is a relation whose file is missing, or shorter than the server has counted. Blocks of zeros among those that
    it has counted are told in RV(not_checked), for nobody knows whether they held rows.
  - Then C(amcheck) looks into tables, TOAST, B-trees, and GIN indexes since PostgreSQL 18. Where the extension is
    missing, it is made in a transaction that is undone, so that nobody sees it.
  - Changes nothing, and nobody waits for it. A look that somebody waits for is given up, and told as not checked. Code
    of users is not run, so an index with an expression or a condition is not compared with its table.
  - Reads all data of the server, which takes from its disk, and one processor, at about 100 MB a second.
  - Runs on the server's host as the operating system user that owns it, with a superuser of the database. A standby can
    be looked at, too, where C(amcheck) was made on its primary.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  databases:
    description:
      - Databases to look at, with what all databases share. All where it is empty.
    type: list
    elements: str
    default: []
  progress_file:
    description:
      - File that says, as long as the module works, how far it is.
    type: path
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
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_index_rebuild
  - module: dbre.recovery.postgresql_side_verification
"""

EXAMPLES = r"""
- name: See whether anything is damaged
  dbre.recovery.postgresql_corruption_info:
    stanza: main
    databases: [shop]
  become: true
  become_user: postgres
  register: corruption

- name: Show it
  ansible.builtin.debug:
    var: corruption.text
"""

RETURN = r"""
sound:
  description: Whether nothing was found, neither damage nor a collation that changed.
  returned: success
  type: bool
damages:
  description: What is damaged, a file of a relation each.
  returned: success
  type: list
  elements: dict
  contains:
    database:
      description: Name of the database; of what all share, of the one in which it was looked at.
      type: str
      sample: shop
    place:
      description:
        - The relation, with its RV(ignore:kind) V(table), V(toast), V(materialized view), V(index), V(sequence),
          V(catalogue) or V(catalogue index), and the table that it is of. V(null) where the catalogue does not tell it.
      type: dict
      sample: {"oid": 16385, "schema": "public", "name": "orders", "kind": "table", "method": "heap", "owner": 16385,
               "table": "public.orders", "unlogged": false}
    path:
      description: The relation's first file, or C(pg_filenode.map) or C(pg_control), below the data directory.
      type: str
      sample: base/16384/16385
    blocks:
      description: Numbers of damaged blocks; RV(ignore:more) are not listed.
      type: list
      elements: int
      sample: [3]
    faults:
      description:
        - V(checksum) or V(header) of a page, V(unreadable) where the disk does not give it, V(structure) of what is in
          it, V(missing) where the file, or blocks of it, are not there.
      type: list
      elements: str
      sample: [checksum]
    messages:
      description: What was said of it.
      type: list
      elements: str
      sample: [a page that the server refuses]
    means:
      description: V(rebuild), V(refresh), V(rows), V(empty) or V(restore); docs/corruption.md tells what each is.
      type: str
      sample: rows
    backups:
      description: The newest backup without the damage, and newer ones that have it or of which that is not known.
      type: dict
      sample: {"clean": {"label": "20261123-200000F", "repo": 1, "type": "full",
                         "stop_time": "2026-11-23T20:00:09+00:00", "stop_lsn": "0/3000100"},
               "damaged": ["20261124-200000F_20261124-200000D"], "unknown": []}
collations:
  description: Collations whose version is no longer the recorded one, with the indexes that were sorted by them.
  returned: success
  type: list
  elements: dict
  sample: [{"database": "shop", "what": "database shop", "recorded": "2.31", "actual": "2.36",
            "indexes": [{"oid": 16390, "schema": "public", "name": "users_name", "unique": false,
                         "path": "base/16384/16390"}], "partitioned": [],
            "refresh": "ALTER DATABASE shop REFRESH COLLATION VERSION"}]
indexes:
  description: What M(dbre.recovery.postgresql_index_rebuild) is to rebuild, for whichever reason.
  returned: success
  type: list
  elements: dict
  sample: [{"database": "shop", "oid": 16390, "schema": "public", "name": "users_name", "path": "base/16384/16390"}]
not_checked:
  description: What could not be looked at, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"what": "structure of 1 hash relations in shop", "why": "amcheck of this server does not know them"}]
facts:
  description:
    - Whether data checksums are on, checksum failures that the server has counted, bytes that were read, and the
      position in WAL (C(lsn)) when all had been looked at. A transaction without changes follows it on a primary, so
      that it can be recovered to.
  returned: success
  type: dict
  sample: {"checksums": true, "checksum_failures": [], "bytes_read": 45522944, "lsn": "0/3008940"}
text:
  description: The same for people, line by line.
  returned: success
  type: list
  elements: str
  sample: ["table public.orders in database shop, block 3: a page that the server refuses"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import manifest_facts, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC as PGBACKREST_SPEC
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, stanza_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import result_of
from ansible_collections.dbre.recovery.plugins.module_utils._verification.locate import Locator


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "databases": {"type": "list", "elements": "str", "default": []},
            "progress_file": {"type": "path"},
            **connection_argument_spec(),
            **PGBACKREST_SPEC,
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    progress = Progress(params["progress_file"])
    pgbackrest = PgBackRest(module.run_command, **stanza_of(params))

    def errors_of(backup: dict[str, Any]) -> list[str]:
        path = f"backup/{pgbackrest.stanza}/{backup['label']}/backup.manifest"
        text = pgbackrest.repo_get(path, repo=backup["repo"])
        return [str(one["file"]) for one in manifest_facts(text)["page_errors"]]

    try:
        locator = Locator(login_of(params), params["databases"], progress)
        locator.run()
        facts = None
        if locator.damages:
            try:
                facts = stanza_facts(pgbackrest.info())
            except RecoveryError as error:
                locator.omit("backups", error.msg)
        result = result_of(locator.damages.values(), locator.collations, locator.omitted, facts, errors_of)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    finally:
        progress.end()
    module.exit_json(changed=False, facts=locator.facts, **result)


if __name__ == "__main__":
    main()
