#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_standby_recovery
short_description: Hold a standby before an incident, bring it exactly there, and let it follow again
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Makes a recovered instance out of a standby that has not yet replayed an incident, such as a delayed one, without
    any restore. The standby stays in recovery all the time and is never promoted.
  - PostgreSQL looks at its recovery target only when it starts, so O(state=targeted) and O(state=released) return
    whether the server must be RV(restart)ed, and O(state=paused) and O(state=following) wait for what comes of it.
  - A transaction that drops a table has it locked before it commits, and a standby holds that lock as well. So the
    standby is stopped where nothing in the database is locked, and it is refused when what was lost changed between
    there and the target.
  - While the standby stands at the target, C(archive_mode) is V(off), so that it could not write to the repository
    even if somebody promoted it (which C(pg_wal_replay_resume()) does there).
  - Run again after it was killed, it goes on.
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
    description:
      - Can run in check_mode and return changed status prediction without modifying the target.
      - With O(state=targeted) the plan is returned.
    support: full
  diff_mode:
    description: Replay of a running server has no readable difference.
    support: none
options:
  path:
    description:
      - Directory in which is recorded what was done to the standby, so that it can be undone. It is made, and removed
        when the standby follows again.
    type: path
    required: true
  incident:
    description:
      - Identifier of the incident. The same identifier goes on.
    type: str
    required: true
  state:
    description:
      - V(held) pauses replay now, so that the incident is not replayed meanwhile.
      - V(targeted) holds it, looks whether it can work, and writes O(target), an exclusive LSN.
      - V(paused) waits, after a restart, until replay is paused at O(target), and proves it.
      - V(released) takes the target back. A standby that was only held goes on at once.
      - V(following) waits, after a restart, until the standby follows the primary again as it did before.
    type: str
    choices: [held, targeted, paused, released, following]
    required: true
  system_identifier:
    description:
      - Production's system identifier. The standby of another server is refused.
    type: str
  database:
    description:
      - Database in which something was lost.
    type: str
  database_oid:
    description:
      - OID of the database in production, if it is there, to know it from another of that name on the standby.
    type: int
  relations:
    description:
      - What the incident hit, each with C(schema), C(name), C(kind) and, where it is known, C(oid). Empty means all of
        the database.
    type: list
    elements: dict
    default: []
  client:
    description:
      - How production reaches the standby over the network. Its role must be there already, as nothing can be written
        on a standby. Without it the recovered instance is reached by its socket.
    type: dict
    suboptions:
      host:
        description:
          - Address of the standby, as seen from production.
        type: str
        required: true
      user:
        description:
          - Role to connect as.
        type: str
        required: true
      passfile:
        description:
          - File on the production host, in the format of C(.pgpass), that has the role's password.
        type: path
        required: true
  timeout:
    description:
      - Seconds to wait for the target, or until the standby follows again.
    type: int
    default: 3600
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
extends_documentation_fragment:
  - dbre.recovery.contracts.target
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_recovery_target_info
  - module: dbre.recovery.postgresql_side_instance
notes:
  - Run it as the operating system user of the standby, who reads its WAL, and as a superuser of the database.
"""

EXAMPLES = r"""
- name: Hold the standby before it replays the incident
  dbre.recovery.postgresql_standby_recovery:
    path: /var/lib/postgresql/dbre-recovery/standby-5432
    incident: incident-7
    stanza: main
    state: held
  become: true
  become_user: postgres

- name: Write the target
  dbre.recovery.postgresql_standby_recovery:
    path: /var/lib/postgresql/dbre-recovery/standby-5432
    incident: incident-7
    stanza: main
    state: targeted
    target: "{{ found.target }}"
    system_identifier: "{{ found.server.system_identifier }}"
    database: shop
    relations: "{{ found.incident.relations }}"
  register: targeted
  become: true
  become_user: postgres

- name: Restart it for the target
  ansible.builtin.systemd_service:
    name: postgresql@17-main
    state: restarted
  when: targeted.restart
  become: true
"""

RETURN = r"""
restart:
  description: Whether the server must be restarted before the next state.
  returned: when O(state) is V(targeted) or V(released)
  type: bool
  sample: true
version_num:
  description: Version of the server, as C(server_version_num) has it.
  returned: when RV(restart) is V(true)
  type: int
  sample: 170006
plan:
  description:
    - The standby, and the C(position) before which replay stops. It is before the target where the transaction that did
      the damage has C(locked) relations, and null as long as the target's WAL is neither received nor archived.
    - C(seconds_left) is the time until a standby that is not held would replay the incident.
    - C(shown) is what people are shown of the plan, each with a C(label) and C(lines).
  returned: when O(state) is V(targeted)
  type: dict
  sample:
    standby:
      host: db2
      port: 5432
      data_directory: /var/lib/postgresql/17/main
      replay_lsn: 0/6000148
      replay_time: "2026-11-23T18:01:11.201+00:00"
      receive_lsn: 0/8000060
      timeline: 1
      delay_seconds: 14400
      held: true
      seconds_left: 12050
      soon: false
      wal: received
      bytes: 33554216
    position: 0/70001A8
    locked: 3
    shown:
      - {label: Standby, lines: ["db2, port 5432, 4 h behind by its delay"]}
instance:
  description:
    - The recovered instance. Without O(client), C(host) is null and the instance is reached by C(socket) only.
    - C(isolation) is what was read back of the standby that keeps it from the repository, and when.
  returned: when O(state) is V(paused)
  type: dict
  sample:
    source: standby
    host: 192.0.2.30
    port: 5432
    socket: /var/run/postgresql
    database: shop
    state: paused
    reached:
      lsn: 0/70001A8
      time: "2026-11-23T21:52:48.112+00:00"
      timeline: 1
    isolation: [{what: archive_mode, value: "off", read: "2026-11-23T21:52:49.020+00:00"}]
    path: /var/lib/postgresql/17/main
    data_directory: /var/lib/postgresql/17/main
    version_num: 170006
    system_identifier: "7711488204033580105"
    user: dbre_recovery
    passfile: /var/lib/postgresql/.dbre_recovery_pgpass
    sslmode: require
    channel_binding: require
proof:
  description: What was read back from the running standby.
  returned: when O(state) is V(paused)
  type: dict
  sample:
    archive_mode: "off"
    in_recovery: true
    pause_state: paused
    replay_lsn: 0/70001A8
    recovery_target_lsn: 0/70001A8
    recovery_target_inclusive: "off"
    tables_locked: 0
    system_identifier: "7711488204033580105"
replay:
  description: Duration of the advance in seconds, and how many bytes of WAL it replayed.
  returned: when O(state) is V(paused)
  type: dict
  sample:
    seconds: 1.4
    bytes: 16777312
following:
  description:
    - How the standby follows the primary again. After a restart PostgreSQL replays what it has before it asks for more,
      so a delayed standby may show C(waits_for) V(RecoveryApplyDelay) and no C(receiver) until then.
  returned: when O(state) is V(following) and something had been done to the standby
  type: dict
  sample:
    replay_lsn: 0/70001A8
    receive_lsn: 0/9000060
    receiver: null
    waits_for: RecoveryApplyDelay
    delay_seconds: 14400
    pause_state: not paused
    archive_mode: "on"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import TARGET_OPTIONS
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC as PGBACKREST_SPEC
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.standby_recovery import Asked, ensure_state

TARGET = ["target", "database"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "incident": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["held", "targeted", "paused", "released", "following"],
                "required": True,
            },
            "target": {"type": "dict", "options": TARGET_OPTIONS},
            "system_identifier": {"type": "str"},
            "database": {"type": "str"},
            "database_oid": {"type": "int"},
            "relations": {"type": "list", "elements": "dict", "default": []},
            "client": {
                "type": "dict",
                "options": {
                    "host": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "passfile": {"type": "path", "required": True},
                },
            },
            "timeout": {"type": "int", "default": 3600},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
            **PGBACKREST_SPEC,
        },
        required_if=[("state", "targeted", TARGET), ("state", "paused", TARGET)],
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        module.exit_json(**ensure_state(login_of(params), pick(Asked, params), params["state"], module.check_mode))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Production was not touched.")


if __name__ == "__main__":
    main()
