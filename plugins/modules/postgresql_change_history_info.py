#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_change_history_info
short_description: Tell from WAL what each transaction changed in a database
version_added: "0.1.0"
description:
  - Reads the WAL of a window, the primary's own C(pg_wal) first, then pgBackRest's archive, and tells every committed
    transaction that made, dropped, truncated, rewrote or renamed a relation, changed its definition, or inserted,
    deleted or updated many rows of it; when, at which position, under which names, and whether something was lost.
  - What loses nothing is named as what it is. C(VACUUM FULL), C(CLUSTER), C(REPACK), C(REFRESH MATERIALIZED VIEW) and
    C(REINDEX) give a relation another file and the same rows; C(ALTER TABLE) may have changed values where it rewrites.
  - The position of a transaction is the recovery target just before it, exclusive. Its number is what C(target_xid) of
    M(dbre.recovery.postgresql_recovery_target_info) takes.
  - What a transaction deleted or updated is told with whatever else it did, however few the rows.
  - Where WAL does not tell what a relation was before, it is told as changed, and that nobody knows how. Of a stretch
    that was written with C(wal_level) V(minimal), it is said that it does not tell all.
  - Temporary relations, statistics and what was rolled back are left out. Only what is in WAL can be told, so unlogged
    tables are seen when they are made and dropped, and no rows of theirs.
  - Runs on the primary as the operating system user that owns the server. Nothing has to be installed beforehand, and
    nothing is written on the server but O(list_path); segments fetched from the archive go to a temporary directory and
    are removed.
  - Needs PostgreSQL 15 or later, with O(ignore:wal_level) replica or logical, and C(full_page_writes) on.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  database:
    description:
      - Database to tell about.
    type: str
    required: true
  since:
    description:
      - Only transactions that committed at or after this time, ISO 8601 with a numeric UTC offset, or in this last part
        of time, such as V(24h) or V(7d), or from this position in WAL on, such as V(0/19563E8).
      - V(backup) is from where the newest backup was complete, V(all) from the start of the oldest backup.
    type: str
    default: 24h
  until:
    description:
      - Only transactions that committed at or before this time, ISO 8601 with a numeric UTC offset, or before this
        position in WAL.
    type: str
  min_rows:
    description:
      - From how many inserted, deleted or updated rows on, of all relations together and with its subtransactions, a
        transaction is told that did nothing else.
    type: int
    default: 1000
  max_changes:
    description:
      - Transactions are told one by one until they have so many changes together, the first of them whatever it did,
        then those that did more than change rows, then those that changed most rows. The others are counted.
    type: int
    default: 2000
  xids:
    description:
      - Numbers of transactions, as WAL has them, that are told one by one whatever they did.
    type: list
    elements: int
    default: []
  list_path:
    description:
      - Existing directory on the host in which all transactions are kept, a line of JSON for each, in a file whose name
        has the OID of the database and the position where the window begins. The same window overwrites its own file.
    type: path
  bin_dir:
    description:
      - Directory of PostgreSQL's programs. Without it the usual places are looked at.
    type: path
  spool_path:
    description:
      - Existing directory below which WAL from the archive is kept while it is read, no more than some 64 segments at a
        time and less where the disk has little room. Without it, the one with the most room of Ansible's temporary
        directory on the host, C(/var/tmp) and C(/tmp).
    type: path
  parallel:
    description:
      - Number of WAL segments to fetch from the archive at a time. V(0) is the number of cores.
    type: int
    default: 0
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
    description: Changes nothing, in check mode or out of it; O(list_path) is written out of it only.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_recovery_target_info
"""

EXAMPLES = r"""
- name: See what the migration of this morning did
  dbre.recovery.postgresql_change_history_info:
    stanza: main
    database: shop
    since: "2026-11-23 06:00:00+00"
  become: true
  become_user: postgres
  register: history

- name: Show it
  ansible.builtin.debug:
    var: history.text
"""

RETURN = r"""
gone:
  description: Whether the server has no database of that name, or none any more.
  returned: failure
  type: bool
  sample: false
count:
  description: Number of the transactions, those included that are not told one by one.
  returned: success
  type: int
  sample: 60210
other_changes:
  description:
    - Transactions that changed what is no relation, such as functions, types, grants (RV(ignore:what)), or what all
      databases share, such as roles and their settings (RV(ignore:shared)). WAL tells of which kind it was, and no
      name.
    - RV(ignore:told) says that the transaction is among RV(count), for what it changed of relations.
  returned: success
  type: list
  elements: dict
  sample: [{"xid": 751, "lsn": "0/19563E8", "commit_time": "2026-11-23T22:01:56.292584+00:00", "what": ["functions"],
            "shared": [], "told": false}]
listed_in:
  description: The file with all of them, and with RV(other_changes); V(null) without O(list_path) and in check mode.
  returned: success
  type: str
  sample: /var/lib/postgresql/dbre-evidence/corruption-20261123T220000Z/transactions-16384-0-19563E8.jsonl
transactions:
  description: The transactions that O(max_changes) has room for, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    database:
      description: Name of the database.
      type: str
      sample: shop
    xid:
      description: Number of the transaction, of the topmost where it had subtransactions, as WAL has it (32 bits).
      type: int
      sample: 740
    lsn:
      description: WAL position of its COMMIT (or COMMIT PREPARED) record, which is the recovery target just before it.
      type: str
      sample: 0/19563E8
    commit_time:
      description: When it committed.
      type: str
      sample: "2026-11-23T22:01:56.292584+00:00"
    prepared:
      description: Whether it was a two-phase transaction.
      type: bool
    loses:
      description:
        - Whether rows or values went with it; V(null) where WAL does not tell, as for C(ALTER TABLE) that rewrites.
      type: bool
    ours:
      description: The incident, where the transaction is part of a recovery with this collection.
      type: str
    changes:
      description:
        - What it did, under the names of just before it, with OID and C(relkind), V(n) for a schema, V(L) for large
          objects.
        - RV(ignore:rows) is the number of rows, V(null) where it is not known; RV(ignore:rows_estimated) says that the
          last VACUUM or ANALYZE told it.
      type: list
      elements: dict
      sample: [{"what": "dropped", "schema": "public", "name": "orders", "kind": "r", "oid": 16385, "rows": 5000,
                "rows_estimated": false, "detail": "", "loses": true}]
tables:
  description:
    - Rows that all transactions changed, by table, under the newest name of each, and how many did.
  returned: success
  type: list
  elements: dict
  sample: [{"schema": "public", "name": "orders", "oid": 16385, "inserted": 0, "updated": 3000, "deleted": 2,
            "transactions": 3}]
text:
  description: The same for people, line by line.
  returned: success
  type: list
  elements: str
  sample: ["2026-11-23T22:01:56.292584+00:00  transaction 740  LSN 0/19563E8  rows or values went with it",
           "    table public.orders dropped (5000 rows)"]
scanned:
  description:
    - WAL that was read, in segments, with the times of its first and last commit, and the time it took in seconds.
    - RV(ignore:unread) is what was not read and why.
  returned: success
  type: dict
  sample: {"from_lsn": "0/1000028", "to_lsn": "0/1D76CA8", "from_time": "2026-11-23T20:00:00.292584+00:00",
           "to_time": "2026-11-23T22:03:30.112233+00:00", "segments": 1, "from_primary": 1, "from_archive": 0,
           "complete": true, "unread": "what is older than backup 20261123-200000F, the oldest",
           "seconds": 0.2}
repository:
  description: The one repository that is used, and those that cannot be reached.
  returned: success
  type: dict
  sample: {"repo": null, "lost": []}
blind:
  description:
    - Catalogues that were written anew in the window (C(VACUUM FULL)). Changes of definitions before that are not told,
      and of a table that was rewritten before it not whether values changed. V(null) where there are none.
  returned: success
  type: dict
  sample: {"catalogues": ["pg_attribute"], "before_lsn": "0/19563E8"}
databases:
  description:
    - Databases of the server that were made in the window, and those dropped in it that were there before; the name of
      a dropped one is V(null).
  returned: success
  type: list
  elements: dict
  sample: [{"what": "dropped", "oid": 16421, "name": null}]
unlogged:
  description: Unlogged tables of the database, of whose rows WAL tells nothing.
  returned: success
  type: list
  elements: str
  sample: ["public.sessions"]
foreign:
  description: Foreign tables of the database, whose rows are on other servers.
  returned: success
  type: list
  elements: str
  sample: ["public.prices_elsewhere"]
roots:
  description: The partitioned table of each partition that was changed, by the partition's OID.
  returned: success
  type: dict
  sample: {"16421": {"schema": "public", "name": "readings", "oid": 16418, "kind": "p"}}
server:
  description: Facts of the primary, as M(dbre.recovery.postgresql_recovery_target_info) returns them.
  returned: success
  type: dict
  sample: {"major": 15, "system_identifier": "7711487094474521737", "timeline": 1}
"""

import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC as PGBACKREST_SPEC
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import stanza_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.change_history import ChangeHistory, window_of
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import is_gone
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import roomiest


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str", "required": True},
            "since": {"type": "str", "default": "24h"},
            "until": {"type": "str"},
            "min_rows": {"type": "int", "default": 1000},
            "max_changes": {"type": "int", "default": 2000},
            "xids": {"type": "list", "elements": "int", "default": []},
            "list_path": {"type": "path"},
            "bin_dir": {"type": "path"},
            "spool_path": {"type": "path"},
            "parallel": {"type": "int", "default": 0},
            **connection_argument_spec(),
            **PGBACKREST_SPEC,
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    below = params["spool_path"] or roomiest(module.tmpdir)
    try:
        spool = tempfile.mkdtemp(prefix="change-history-", dir=below)
    except OSError as error:
        module.fail_json(msg=f"cannot make a directory for WAL in {below} (spool_path): {error}")
    try:
        window = window_of(params["since"], params["until"])
        request = make_request(params["database"], min_rows=params["min_rows"], **window)
        archive = StanzaArchive(**stanza_of(params), parallel=params["parallel"])
        since_backup = params["since"].strip().lower() == "backup"
        history = ChangeHistory(
            login_of(params), request, spool, archive, bin_dir=params["bin_dir"], since_backup=since_backup
        )
        try:
            result = history.read(
                params["max_changes"], None if module.check_mode else params["list_path"], params["xids"]
            )
        finally:
            history.close()
    except RecoveryError as error:
        details = error.details if module._verbosity else {}
        module.fail_json(msg=error.msg, gone=is_gone(login_of(params), params["database"]), **details)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
