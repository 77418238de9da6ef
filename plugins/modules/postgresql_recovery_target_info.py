#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_recovery_target_info
short_description: Find in WAL the transaction that did the damage, and the recovery target just before it
version_added: "0.1.0"
description:
  - Searches WAL backwards from now, the primary's own C(pg_wal) first, then pgBackRest's archive, as far as the start
    of the oldest backup, for the transaction that dropped, truncated, emptied or changed what is named.
  - Names of what was dropped are read from the catalogue rows in WAL itself, so a table made after the last backup is
    found, and one whose OID nobody remembers.
  - The target is the position of that transaction's COMMIT (or COMMIT PREPARED) record, exclusive. Everything that
    committed before it is there after a recovery to it, and the damage is not.
  - It never guesses. Where several transactions may be meant, or WAL does not tell, it fails and lists them, all of
    them, the oldest first, each with the option that chooses it. For what is still there all WAL is read, as far as the
    oldest backup or O(since), since an older damage may be the one. Only the drop of something
    gone ends the search early, when the relation had its name before all WAL there is.
  - Of several, one is taken without a question only when all others surely lost no row, or are recoveries of this
    collection itself, which mark their transactions; the C(reason) of RV(target) then names those.
  - Runs on the primary as the operating system user that owns the server, who reads C(pg_wal) and the archive.
    Nothing is written on the server; segments fetched from the archive go to a temporary directory and are removed.
  - A search needs PostgreSQL 15 or later, a target that is given 13 or later, with O(ignore:wal_level) replica or
    logical, and C(full_page_writes) on.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  database:
    description:
      - Database in which something was lost. With neither O(relations) nor O(schemas), the whole database was dropped.
    type: str
    required: true
  relations:
    description:
      - What was lost, tables for most, written as in SQL (V(public.orders), V("Sales"."Order Lines")). Each element may
        be a comma-separated list. A name without schema is in V(public).
      - Several lost in one transaction give one target. Lost in several transactions, the target is before the first,
        provided that all existed then.
    type: list
    elements: str
    default: []
  schemas:
    description:
      - Schemas that were dropped, or that are there and lost tables, written as in SQL.
    type: list
    elements: str
    default: []
  kinds:
    description:
      - What to look for. V(auto) is the drop of what does not exist now, and of what does exist, transactions that
        truncated it, deleted or updated at least O(min_rows) of its rows, dropped a column of it, or dropped it before
        it was made again. Partitions and inheritance children count with their parent.
      - V(ddl) is any change of the definition of a relation that exists now.
    type: list
    elements: str
    choices: [auto, drop_schema, drop_table, truncate, drop_column, delete, update, ddl, drop_database]
    default: [auto]
  since:
    description:
      - Only transactions that committed at or after this time. ISO 8601 with a numeric UTC offset. Ends the search.
    type: str
  until:
    description:
      - Only transactions that committed at or before this time. ISO 8601 with a numeric UTC offset.
    type: str
  min_rows:
    description:
      - Number of rows, in all partitions together, from which a delete or update counts as damage.
    type: int
    default: 1000
  target_lsn:
    description:
      - Instead of a search, this WAL position, such as V(0/3008940). The target is just before it.
    type: str
  target_time:
    description:
      - Instead of a search, this time, ISO 8601 with a numeric UTC offset. Everything committed up to and including it
        is there, as with PostgreSQL's C(recovery_target_time). The result is the position of the first later commit.
    type: str
  target_xid:
    description:
      - Instead of a search, this transaction, which must have committed. The target is just before its commit.
    type: str
  together:
    description:
      - Transactions that are meant together with that of O(target_xid), which must have committed. The target is just
        before the commit of the first of them all, and the others are in RV(incident.also). WAL is replayed up to the
        last of them.
    type: list
    elements: str
    default: []
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
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_wal_archive
  - module: dbre.recovery.pgbackrest_restore
"""

EXAMPLES = r"""
- name: Find who dropped the orders
  dbre.recovery.postgresql_recovery_target_info:
    stanza: main
    database: shop
    relations: [public.orders]
  become: true
  become_user: postgres
  register: lost

- name: Find the DELETE without a WHERE of this afternoon
  dbre.recovery.postgresql_recovery_target_info:
    stanza: main
    database: shop
    relations: ['"Sales"."Order Lines"']
    kinds: [delete]
    since: "2026-11-23 12:00:00+00"
    min_rows: 100000
  become: true
  become_user: postgres
  register: lost
"""

RETURN = r"""
incident:
  description: The transaction that did the damage.
  returned: success
  type: dict
  contains:
    kind:
      description: One of the kinds of O(kinds), or V(explicit) for a target that was given.
      type: str
      sample: drop_table
    database:
      description: Name of the database.
      type: str
      sample: shop
    xid:
      description: Number of the transaction, of the topmost where it had subtransactions, as WAL has it (32 bits).
      type: int
      sample: 740
    lsn:
      description: WAL position of the first record that must not be replayed.
      type: str
      sample: 0/19563E8
    commit_lsn:
      description: WAL position of the COMMIT record; differs from RV(incident.lsn) for a dropped database.
      type: str
      sample: 0/19563E8
    commit_time:
      description: When the transaction committed.
      type: str
      sample: "2026-11-23T22:01:56.292584+00:00"
    timeline:
      description: Timeline that the record was written on.
      type: int
      sample: 1
    rows:
      description: Rows deleted or updated. Null for other kinds.
      type: int
      sample: 6000000
    relations:
      description:
        - Everything that the transaction damaged, under the names of just before it, with OID and C(relkind). What was
          asked for comes first (RV(ignore:asked)), then what went with it, such as by CASCADE.
        - RV(ignore:damage) is V(drop), V(truncate), V(column), V(delete) or V(update), V(null) where only the name is
          known.
        - RV(ignore:rows) is how many rows went with it, counted in WAL, or V(null) where it does not tell;
          RV(ignore:rows_estimated) says that the last VACUUM or ANALYZE told the number. RV(ignore:columns) are those
          that were dropped.
      type: list
      elements: dict
      sample: [{"schema": "public", "name": "orders", "oid": 16385, "kind": "r", "damage": "drop", "rows": 5000,
                "rows_estimated": false, "asked": true}]
    ours:
      description: Whether the transaction is part of an earlier recovery with this collection, which marks its own.
      type: bool
    prepared:
      description: Whether it was a two-phase transaction; RV(incident.lsn) is then that of COMMIT PREPARED.
      type: bool
    subxacts:
      description: Committed subtransactions (savepoints).
      type: list
      elements: int
    also:
      description:
        - Later transactions that are meant with it (O(together)), in the order of their commits, each with its C(xid),
          C(lsn), C(commit_time) and C(subxacts).
      type: list
      elements: dict
      sample: []
    note:
      description: A remark, where there is one.
      type: str
target:
  description: The recovery target just before the incident, as other modules take it.
  returned: success
  type: dict
  sample:
    type: lsn
    value: 0/19563E8
    exclusive: true
    timeline: 1
    xid: 740
    commit_time: "2026-11-23T22:01:56.292584+00:00"
    reason: just before the COMMIT of transaction 740 (drop_table)
    segment: "000000010000000000000001"
candidates:
  description:
    - Everything of the same kinds that was found, the oldest first, each like RV(incident). With C(-v) also
      returned on failure, where the message lists them in any case.
  returned: success
  type: list
  elements: dict
scanned:
  description:
    - WAL that was read, in segments, with the times of its first and last commit, and the time it took in seconds.
    - RV(ignore:complete) is whether all was read from which a recovery could begin, RV(ignore:unread) what was not read
      and why.
  returned: success
  type: dict
  sample: {"from_lsn": "0/1000028", "to_lsn": "0/1D76CA8", "from_time": "2026-11-23T20:00:00.292584+00:00",
           "to_time": "2026-11-23T22:03:30.112233+00:00", "segments": 1, "from_primary": 1, "from_archive": 0,
           "complete": true, "unread": "what is older than backup 20261123-200000F, the oldest",
           "seconds": 0.2}
last_commit:
  description: The last transaction that committed before the target. Null when the WAL read holds none.
  returned: success
  type: dict
  sample: {"lsn": "0/1952BE8", "time": "2026-11-23T22:01:56.292106+00:00", "xid": 738}
transactions_after:
  description: Number of transactions that committed after the incident, and the seconds from it to now.
  returned: success
  type: dict
  sample: {"count": 12, "seconds": 95.3}
repository:
  description:
    - RV(ignore:repo), the key of the one repository that is used, because O(repo) says so or because others cannot be
      reached; V(null) when all are used. RV(ignore:lost), those that cannot be reached.
  returned: success
  type: dict
  sample: {"repo": 2, "lost": [{"repo": 1, "message": "[HostConnectError] unable to connect to 'backup1:8432'"}]}
server:
  description: Facts of the primary that a side restore needs. Sizes are in bytes.
  returned: success
  type: dict
  sample:
    version_num: 150018
    major: 15
    system_identifier: "7711487094474521737"
    timeline: 1
    data_directory: /var/lib/postgresql/15/main
    bin_dir: /usr/lib/postgresql/15/bin
    wal_segment_size: 16777216
    wal_level: replica
    full_page_writes: "on"
    host_time: "2026-11-23T22:03:31.000000+00:00"
    in_recovery: false
    databases: [{"name": "shop", "oid": 16384, "size": 7721775, "collate": "C.UTF-8", "ctype": "C.UTF-8"}]
    superuser: postgres
    tablespaces: []
    kept_wal: [{"first": "000000010000000000000005", "last": "000000010000000000000009"}]
    recovery_settings: {"max_connections": 100, "max_worker_processes": 8, "max_wal_senders": 10,
                        "max_prepared_transactions": 0, "max_locks_per_transaction": 64}
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
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import KINDS
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import roomiest

REQUEST_SPEC = {
    "database": {"type": "str", "required": True},
    "relations": {"type": "list", "elements": "str", "default": []},
    "schemas": {"type": "list", "elements": "str", "default": []},
    "kinds": {"type": "list", "elements": "str", "choices": ["auto", *KINDS], "default": ["auto"]},
    "since": {"type": "str"},
    "until": {"type": "str"},
    "min_rows": {"type": "int", "default": 1000},
    "target_lsn": {"type": "str"},
    "target_time": {"type": "str"},
    "target_xid": {"type": "str"},
    "together": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUEST_SPEC,
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
        spool = tempfile.mkdtemp(prefix="recovery-target-", dir=below)
    except OSError as error:
        module.fail_json(msg=f"cannot make a directory for WAL in {below} (spool_path): {error}")
    try:
        request = make_request(**{name: params[name] for name in REQUEST_SPEC})
        archive = StanzaArchive(**stanza_of(params), parallel=params["parallel"])
        search = Search(login_of(params), request, spool, archive, bin_dir=params["bin_dir"])
        try:
            result = search.find()
        finally:
            search.close()
    except RecoveryError as error:
        # The message lists what there is to choose from; as data it would fill the screen.
        module.fail_json(msg=error.msg, **(error.details if module._verbosity else {}))
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
