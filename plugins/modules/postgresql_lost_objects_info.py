#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_lost_objects_info
short_description: Compute what an incident took from a database, and plan its recovery
version_added: "0.1.0"
description:
  - Compares production with a recovered instance that stands just before the incident. Returns the load plan for
    M(dbre.recovery.postgresql_table_recovery).
  - What a drop took with it is computed, not guessed, as the recursive closure over C(pg_depend) in the recovered
    instance from the lost relations and schemas. It is what C(DROP ... CASCADE) removed. Each object is then looked
    up in production by name. What is missing is in the plan; what is there stays as it is, and is named in
    RV(load_plan.left_to_do) when it was made anew.
  - When neither relations nor schemas are named and the database does not exist, the plan is for the whole database.
  - Needs no superuser. A role that is none (as in managed services) becomes a member of the owners while it recovers,
    and what it may not make is found by a rehearsal, without rows and rolled back, and named in
    RV(load_plan.left_to_do).
  - When an earlier run of the same incident has begun, the plan it began with is returned.
options:
  instance_password:
    description:
      - Password for the recovered instance, where it asks for one.
    type: str
  database:
    description:
      - Name of the database.
    type: str
    required: true
  relations:
    description:
      - Lost relations, written as in SQL. A name without a schema is in C(public).
    type: list
    elements: str
    default: []
  schemas:
    description:
      - Lost schemas, written as in SQL. Of a schema that still exists, all relations it held are looked at.
    type: list
    elements: str
    default: []
  load:
    description:
      - What to do with a table that exists in production (after C(TRUNCATE), C(DELETE) or C(UPDATE), or when somebody
        made a new one). A table that is missing always goes back to its place.
      - V(beside) puts a copy in the schema C(recovered_<incident>) and leaves production's table alone.
      - V(merge) inserts the rows that are missing by primary key, and lists those that differ. Tables that foreign keys
        link are merged, or replaced, together in one transaction; rows that do not fit are kept beside. No trigger
        fires.
      - V(replace) exchanges the content in one transaction and keeps the old rows beside.
      - V(swap) loads the tables as they were, with their definitions, and puts them in the place of those of now, which
        are kept in the schema C(damaged_<incident>). Views and functions that hang on them come back as they were, too;
        foreign keys of other tables are made anew. It needs a superuser and a physical copy.
      - Without relations and schemas, V(swap) is of a whole database that exists. It is brought beside as it was, and
        gets the name in exchange; the one in use is kept as C(<database>_damaged_<incident>).
    type: str
    choices: [beside, merge, replace, swap]
    default: beside
  incident:
    description:
      - Identifier of the incident. It names the schema (or database) C(recovered_<incident>).
    type: str
    required: true
  xids:
    description:
      - Transaction that did the damage and its subtransactions. What privileges they took from objects that are still
        there, as C(DROP OWNED) does, is then in RV(load_plan.left_to_do) with the commands that give them back.
      - Large objects that they unlinked come back with the rows that name them, whoever owns them.
    type: list
    elements: int
    default: []
  unless_same:
    description:
      - Those of O(relations) that O(load=swap) leaves as they are where, but for foreign keys to the others, their
        definition is what it was. WAL tells that a definition changed also where only such a key was dropped.
    type: list
    elements: str
    default: []
  damaged_pages:
    description:
      - Of those of O(relations) whose pages production cannot read, which these are. O(load=merge) brings back their
        rows only, and leaves the pages behind.
      - Each with the C(oid) of the relation, its C(blocks), its file's C(path) below the data directory, and the C(lsn)
        at which they were looked at.
    type: list
    elements: dict
    default: []
  bin_dir:
    description:
      - Directory of the client programs (C(pg_dump), C(pg_restore), C(psql)) of production's major version, on the host
        the module runs on. For a production over the network (O(login_host)), a newer major version will do.
      - Without it they are looked for where the distributions put them.
    type: path
attributes:
  check_mode:
    support: full
    description: Changes nothing in any case.
  diff_mode:
    support: none
    description: Changes nothing.
extends_documentation_fragment:
  - dbre.recovery.contracts.required_instance
  - dbre.recovery.postgresql
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what the drop of a table took with it
  dbre.recovery.postgresql_lost_objects_info:
    instance: "{{ recovery_source_instance }}"
    database: shop
    relations: [public.orders]
    incident: "4711"
  become: true
  become_user: postgres
  register: lost

- name: Plan to merge deleted rows back
  dbre.recovery.postgresql_lost_objects_info:
    instance: "{{ recovery_source_instance }}"
    database: shop
    relations: ['"Sales"."Order Lines"']
    load: merge
    incident: "4712"
  become: true
  become_user: postgres
"""

RETURN = r"""
load_plan:
  description: The load plan; hand it on whole.
  returned: success
  type: dict
  contains:
    incident:
      description: Identifier of the incident.
      type: str
      sample: "4711"
    database:
      description: Name of the database.
      type: str
      sample: shop
    load:
      description: What is done with tables that exist.
      type: str
      sample: beside
    staging_schema:
      description: Schema with the journal of the recovery and the kept copies.
      type: str
      sample: recovered_4711
    staging_database:
      description: Database that is loaded before it gets its name, when the whole database was lost.
      type: str
      sample: null
    kept_database:
      description: What the damaged database is called after the recovered one got its name. With C(load=swap).
      type: str
      sample: null
    holding:
      description:
        - With C(load=swap) and relations, what hangs on the tables of now. C(roots) are their OIDs, C(moves) what is
          kept with them, C(keys) the foreign keys between them and tables that stay, C(publications) that list them,
          C(shown) views and functions that come back, C(stays) those that go on with what is kept.
      type: dict
      sample: {"roots": [16384], "moves": [], "keys": [], "publications": [], "shown": [], "stays": [], "refused": []}
    staging_schemas:
      description: Schema in which the tables of each schema are loaded.
      type: dict
      sample: {"public": "recovered_4711"}
    relations:
      description:
        - Tables, with C(state) C(missing), C(exists) or C(recreated), and C(action) C(place), C(beside), C(merge),
          C(replace), C(columns) (the lost C(columns) are put back and filled by C(key)) or C(none).
          C(bytes) and C(rows_estimate) are the recovered instance's.
        - C(silenced_triggers) are those that would fire even for a replica (C(ENABLE ALWAYS), C(ENABLE REPLICA)). They
          are disabled in the transaction that merges or replaces the rows, so that whoever writes to the table waits
          until it ends. So they do where a merged table has C(late_keys), which are deferrable unique keys and
          exclusion constraints.
      type: list
      elements: dict
      sample:
        - {"schema": "public", "name": "orders", "oid": 16484, "kind": "r", "bytes": 81920, "rows_estimate": 1000,
           "state": "missing", "action": "place", "silenced_triggers": [],
           "late_keys": []}
    objects:
      description: Missing objects that are put back, as C(pg_identify_object) names them.
      type: list
      elements: dict
      sample: [{"type": "view", "identity": "public.order_totals", "state": "missing"}]
    sequences:
      description: Sequences of the lost tables with their values in the recovered instance.
      type: list
      elements: dict
      sample: [{"schema": "public", "name": "orders_id_seq", "last_value": 20000, "is_called": true}]
    missing_roles:
      description: Roles of lost objects that do not exist in production, with the command that makes them.
      type: list
      elements: dict
      sample: [{"name": "reader", "command": "CREATE ROLE \"reader\" NOLOGIN;"}]
    missing_tablespaces:
      description: Tablespaces of lost relations that do not exist in production.
      type: list
      elements: str
      sample: []
    missing_memberships:
      description:
        - Roles that the connecting role, when it is no superuser, must become and cannot, with the C(reason) and the
          C(command) that allows it.
      type: list
      elements: dict
      sample: [{"name": "shop_owner", "reason": "permission denied", "command": "GRANT \"shop_owner\" TO \"master\";"}]
    replication:
      description:
        - The C(publications) that concern the tables, the logical replication C(slots) of the database with their
          C(subscriber), and the C(most_changes) that subscribers get. Tables that go back to their place are filled
          without a change being sent, for subscribers still have their own rows.
      type: dict
      sample: {"publications": [], "slots": [], "most_changes": 0}
    waits:
      description:
        - Tables for which others may have to wait longer than a second, C(whom) that concerns and C(why), with
          C(least_seconds) (when few rows are to be written) and C(most_seconds) (when all are) on a slow server.
      type: list
      elements: dict
      sample:
        - {"object": "public.orders", "whom": "writers", "why": "to exchange rows that are not as they were",
           "least_seconds": 0.3, "most_seconds": 20.3}
    event_triggers:
      description:
        - Event triggers of production that are enabled, what each C(calls), and whether it C(fires) on this work. One
          that would is refused, with the command that helps.
      type: list
      elements: dict
      sample:
        - {"name": "audit", "event": "ddl_command_end", "calls": "public.audit", "state": "ENABLE", "fires": false}
    left_to_do:
      description: What this recovery does not do, each with C(type), C(object), C(reason) and C(command).
      type: list
      elements: dict
      sample: []
    room:
      description:
        - By file system of production, how many bytes what was lost needs at C(least) and at C(most), and how many are
          C(free). What cannot fit is refused. Empty over the network, and when an earlier run has begun to load.
      type: list
      elements: dict
      sample: [{"path": "/var/lib/postgresql/15/main", "device": 65025, "free": 9000000000, "total": 20000000000,
                "least": 60000, "most": 212992}]
    large_objects:
      description:
        - Large objects that rows of the tables name and production lacks, with their C(count), C(bytes) (null where
          they may not be read), what they take as they are C(stored), and their C(owners). Those come back that the
          transactions C(xids) unlinked, and those of the table's owner, of roles that it can act as, and, where it is
          a group that cannot log in, of its members. The others, C(left), may have been unlinked on purpose; the
          recovery names them, with the command that brings them back.
      type: dict
      sample:
        {"count": 2, "bytes": 4096, "stored": 4152, "owners": ["shop_owner"], "xids": [734],
         "left": {"count": 0, "bytes": 0, "stored": 0, "owners": []}}
    bytes:
      description: Size of the tables and large objects to load, in bytes.
      type: int
      sample: 81920
"""

from contextlib import closing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import INSTANCE_OPTIONS, load_plan
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import refuse_lost_quotes
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import Planner
from ansible_collections.dbre.recovery.plugins.module_utils._tables.rehearsal import rehearse
from ansible_collections.dbre.recovery.plugins.module_utils._tables.room import room_for


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "instance": {"type": "dict", "required": True, "options": INSTANCE_OPTIONS},
            "instance_password": {"type": "str", "no_log": True},
            "database": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "str", "default": []},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "load": {"type": "str", "choices": ["beside", "merge", "replace", "swap"], "default": "beside"},
            "incident": {"type": "str", "required": True},
            "xids": {"type": "list", "elements": "int", "default": []},
            "unless_same": {"type": "list", "elements": "str", "default": []},
            "damaged_pages": {"type": "list", "elements": "dict", "default": []},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        with open_servers(
            login_of(params), params["bin_dir"], params["incident"], params["instance"], params["instance_password"]
        ) as (production, side):
            planner = Planner(
                production,
                side,
                params["database"],
                params["incident"],
                params["load"],
                same_lineage=not params["instance"].get("own_oids"),
                xids=params["xids"],
                unless_same=parse_relation_list(params["unless_same"]),
                damaged_pages=params["damaged_pages"],
                reached=params["instance"].get("reached"),
            )
            plan = planner.plan(parse_relation_list(params["relations"]), parse_schema_list(params["schemas"]))
            with closing(side.connect(params["database"])) as connection:
                refuse_lost_quotes(connection, params["relations"], params["schemas"])
            whole = load_plan({**rehearse(production, side, plan), "room": room_for(production, side, plan)})
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    module.exit_json(changed=False, load_plan=whole)


if __name__ == "__main__":
    main()
