#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_incident_time_info
short_description: Find when something was dropped or damaged on RDS, and the second to restore to
version_added: "0.1.0"
description:
  - RDS and Aurora give no WAL files, so the moment is found from what there is, and RV(precision_seconds) says how
    near that comes.
  - The server's log (log files, or CloudWatch Logs where the log is exported there) tells when a statement began,
    with C(log_statement=ddl) (V(mod) for C(TRUNCATE), C(DELETE) and C(UPDATE)), or with pgAudit. A statement that
    failed, or was seen rolled back, is left out.
  - The database tells exact commit times with C(track_commit_timestamp) (of C(TRUNCATE), dropped columns and
    C(UPDATE)), and the last statement of each session that is still open.
  - RDS restores to a whole second and includes what committed at that moment. The target is the last second of which
    it is certain that the incident had not committed.
  - Where several statements can have done it, the module fails and lists them with the moment before each. Where
    nothing tells, it says what was looked at, which settings would have told, and what a search by restores
    (P(dbre.recovery.rds_bisect#filter)) costs. It never guesses.
options:
  db_instance_identifier:
    description: Identifier of the DB instance.
    type: str
  db_cluster_identifier:
    description: Identifier of the Aurora or Multi-AZ DB cluster. The logs of all its instances are read.
    type: str
  database:
    description: Name of the database.
    type: str
    required: true
  relations:
    description:
      - Lost or damaged relations, written as in SQL. A name without a schema is in C(public).
      - Without relations and schemas, the whole database was dropped.
    type: list
    elements: str
    default: []
  schemas:
    description: Lost schemas, written as in SQL.
    type: list
    elements: str
    default: []
  since:
    description: Begin of the time to search, ISO 8601 with its UTC offset. By default 24 hours before O(until).
    type: str
  until:
    description: End of the time to search, ISO 8601 with its UTC offset. By default now.
    type: str
  target_time:
    description:
      - The moment to restore to, when it is known better, ISO 8601 with its UTC offset. Nothing is searched then.
    type: str
  login_host:
    description: Host name or address of the server. By default the endpoint that AWS names (with its port).
    type: str
  progress_file:
    description:
      - File that holds one JSON object with C(at), C(what), C(done), C(total) and C(unit) while the log is read.
      - It is removed at the end.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.postgresql) and C(group/dbre.recovery.rds) in C(module_defaults) to
        set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
      - dbre.recovery.rds
  check_mode:
    support: full
    description: Changes nothing in any case.
  diff_mode:
    support: none
    description: Changes nothing.
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
notes:
  - The database role need not be a superuser. It sees other sessions' statements as a member of C(pg_monitor), as the
    master user of RDS is, and rows of tables that it may read.
  - When the database cannot be reached, the log alone is looked at, and RV(evidence) says so.
seealso:
  - module: dbre.recovery.rds_restore
  - plugin: dbre.recovery.rds_bisect
    plugin_type: filter
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Find when a table was dropped
  dbre.recovery.rds_incident_time_info:
    db_instance_identifier: shop
    region: eu-central-1
    database: shop
    relations: [public.orders]
    login_user: postgres
    login_passfile: /root/.pgpass
    ssl_mode: verify-full
    ca_cert: /etc/ssl/rds-global-bundle.pem
  register: found

- name: Look further back in the logs of all members of a cluster
  dbre.recovery.rds_incident_time_info:
    db_cluster_identifier: shop-aurora
    region: eu-central-1
    database: shop
    schemas: [sales]
    since: "2026-11-22T00:00:00+00:00"

- name: Take the moment that is known
  dbre.recovery.rds_incident_time_info:
    db_instance_identifier: shop
    region: eu-central-1
    database: shop
    target_time: "2026-11-25T12:14:03+00:00"
"""

RETURN = r"""
target:
  description: The recovery target just before the incident, as other modules take it. Its C(value) is in UTC.
  returned: success
  type: dict
  sample:
    type: time
    value: "2026-11-25T12:14:03+00:00"
    exclusive: false
    timeline: null
    xid: null
    commit_time: null
    reason: >-
      the last whole second before drop_table of public.orders, seen at 2026-11-25T12:14:03+00:00 (session 24833 user
      app on shop): drop table public.orders;
precision_seconds:
  description:
    - Seconds from the target to the commit of the incident, or to the latest that it can have been, or (where the log
      does not tell when it committed) to the beginning of its statement. RV(lost_at_most) says which.
  returned: success
  type: float
  sample: 1.0
lost_at_most:
  description: What of the time before the incident is not in the restore, in a sentence for the plan and the report.
  returned: success
  type: str
  sample: >-
    Rows committed after 2026-11-25T12:14:03+00:00 and before the incident are not in the restore: those of at most 1 s.
lost:
  description: The same for the report of M(dbre.recovery.incident). RV(ignore:seconds) is null for O(target_time).
  returned: success
  type: dict
  sample: {"seconds": 1.0, "why": "Rows committed after 2026-11-25T12:14:03+00:00 ..."}
method:
  description:
    - V(log), V(commit_timestamp), V(activity) (a session that was still open) or V(operator) (O(target_time)).
  returned: success
  type: str
  sample: log
incident:
  description:
    - What did the damage. RV(ignore:kind) is V(drop_table) (any relation), V(drop_schema), V(drop_database),
      V(drop_column), V(truncate), V(delete), V(update) or V(explicit).
    - RV(ignore:commit_time) is what is known of it, see RV(ignore:precision).
  returned: success
  type: dict
  sample:
    kind: drop_table
    database: shop
    relations: [{"schema": "public", "name": "orders"}]
    rows: null
    xid: null
    pid: 24833
    user: app
    statement: drop table public.orders;
    outcome: unknown
    notes: []
    commit_time: "2026-11-25T12:14:03+00:00"
    found_by: the server's log
    precision: "Rows committed after 2026-11-25T12:14:03+00:00 and before the incident are not in the restore: ..."
candidates:
  description:
    - All statements and transactions that were found, the oldest first, with the target before each, who did it,
      C(outcome) (V(unknown), V(committed), V(failed), V(rolled_back) or V(open)) and C(confidence) (V(high), V(medium)
      where the schema was not named, V(low) where it need not have anything to do with it).
    - Also returned on failure.
  returned: always
  type: list
  elements: dict
  sample:
    - {"kind": "drop_table", "source": "log", "subjects": ["public.orders"], "confidence": "high",
       "relations": [{"schema": "public", "name": "orders"}], "outcome": "unknown", "pid": 24833, "user": "app",
       "started": "2026-11-25T12:14:03+00:00", "not_before": "2026-11-25T12:14:03+00:00", "not_after": null,
       "commit_time": null, "target": "2026-11-25T12:14:03+00:00", "precision_seconds": 1.0, "database": "shop",
       "instance": "shop", "xid": null, "rows": null, "statement": "drop table public.orders;", "notes": []}
evidence:
  description: What was looked at, and what it said. Also returned when nothing was found.
  returned: always
  type: list
  elements: dict
  sample:
    - {"source": "database", "text": "public.orders does not exist"}
    - {"source": "log", "text": "shop: 2 files from error/postgresql.log.2026-11-25-11 to ..."}
looked_at:
  description: The time that was searched, and how much of the log was read.
  returned: success
  type: dict
  sample: {"since": "2026-11-24T12:30:00+00:00", "until": "2026-11-25T12:30:00+00:00", "instances": ["shop"],
           "files": 25, "bytes": 10485760, "events": 0, "lines": 90000, "statements": 1200}
bisect:
  description: What a search by restores costs at most, for P(dbre.recovery.rds_bisect#filter).
  returned: when nothing was found
  type: dict
  sample: {"restores": 11, "minutes_each": 30.0, "minutes": 330.0, "instance_hours": 5.5, "text": "finding it by ...",
           "after": "2026-11-24T12:30:00+00:00", "before": "2026-11-25T12:30:00+00:00"}
"""

from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import masked
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RdsModule, run_module
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.incident_time import Asked, Search

SPEC: dict[str, Any] = {
    **connection_argument_spec(),
    "db_instance_identifier": {"type": "str"},
    "db_cluster_identifier": {"type": "str"},
    "database": {"type": "str", "required": True},
    "relations": {"type": "list", "elements": "str", "default": []},
    "schemas": {"type": "list", "elements": "str", "default": []},
    "since": {"type": "str"},
    "until": {"type": "str"},
    "target_time": {"type": "str"},
    "progress_file": {"type": "path"},
}


def run(module: RdsModule) -> dict[str, Any]:
    search = Search(
        module.rds(),
        lambda: module.client("logs"),
        login_of(module.params),
        pick(Asked, module.params),
        Progress(module.params["progress_file"]),
        datetime.now(timezone.utc),
    )
    try:
        return {"changed": False, **masked(search.find())}
    except RecoveryError as error:
        error.details = {"candidates": [], "evidence": masked(search.evidence), **error.details}
        raise


def main() -> None:
    run_module(
        SPEC,
        run,
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier")],
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
    )


if __name__ == "__main__":
    main()
