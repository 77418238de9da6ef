#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_side_instance
short_description: Bring a side instance to its recovery target, promote, stop or remove it
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Ensures the state of a side instance that M(dbre.recovery.pgbackrest_restore) made.
  - An instance counts as paused only when PostgreSQL says so and its log names the target it stopped at. What keeps it
    isolated is read back from the running server; an instance that is not isolated is stopped, and the module fails.
  - Replay that cannot reach the target fails at once, with the WAL file that is missing. A setting that production
    raised after the backup (C(max_connections) and the like) is raised here too, and replay goes on.
  - With O(target), an instance that was made for another one is refused.
  - Run again after it was killed, it goes on.
extends_documentation_fragment:
  - dbre.recovery.contracts.target
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns the state before and after, when in diff mode.
    support: full
options:
  path:
    description:
      - Directory of the side instance.
    type: path
    required: true
  state:
    description:
      - V(paused) starts the server unless it runs and waits until replay is paused at the target. Tables locked by a
        transaction that is open at the target cannot be read in this state.
      - V(promoted) does the same and then ends recovery, which rolls open and prepared transactions back,
        and opens the instance to O(client).
      - V(stopped) stops the server.
      - V(absent) stops it and removes everything below O(path), which must carry the marker of a side instance.
    type: str
    choices: [paused, promoted, stopped, absent]
    default: promoted
  timeout:
    description:
      - Seconds to wait for the target. When they are over the module fails; replay itself goes on.
    type: int
    default: 3600
  client:
    description:
      - One client that may connect over the network, with TLS and a password, once the instance is promoted.
      - Its role may read everything and change nothing.
    type: dict
    suboptions:
      address:
        description:
          - Address, network in CIDR notation, or name of the host that the client comes from. A name is resolved once.
        type: str
        required: true
      listen:
        description:
          - Address or name of this host to listen on.
        type: str
        required: true
      user:
        description:
          - Role the client connects as. It is made.
        type: str
        required: true
      password:
        description:
          - Password of the role.
        type: str
        required: true
      database:
        description:
          - Database the client connects to.
        type: str
        required: true
  images:
    description:
      - What transactions changed, to be told by M(dbre.recovery.postgresql_transaction_undo). The COMMIT record of the
        first one is the target, exclusive. With O(state=promoted) the rows of its tables are kept as it found them,
        replay goes on by this one record, and they are kept as it left them, and so on with the others. What all of
        them did to a row together is in schema C(dbre_images) of the side instance.
      - An instance that has gone past its target cannot be had without it any more.
    type: dict
    suboptions:
      database:
        description:
          - Database of the transactions.
        type: str
        required: true
      transactions:
        description:
          - The transactions, in the order of their commits.
        type: list
        elements: dict
        required: true
        suboptions:
          lsn:
            description:
              - Position of its COMMIT record.
            type: str
            required: true
          xids:
            description:
              - Number of the transaction and of its subtransactions, as WAL has them.
            type: list
            elements: int
            required: true
          relations:
            description:
              - OIDs of the tables whose rows it changed. Of a partitioned table, those of the partitions.
            type: list
            elements: int
            required: true
requirements:
  - psycopg2 on the host the module runs on
  - openssl on the host the module runs on, for O(client)
seealso:
  - module: dbre.recovery.pgbackrest_restore
notes:
  - Run it as the operating system user that owns the side instance.
"""

EXAMPLES = r"""
- name: Bring the side instance to its target and open it
  dbre.recovery.postgresql_side_instance:
    path: /var/lib/postgresql/side/incident-7
    state: promoted
  register: side
  become: true
  become_user: postgres

- name: Let production's host read it
  dbre.recovery.postgresql_side_instance:
    path: /var/lib/postgresql/side/incident-7
    state: promoted
    client:
      address: 192.0.2.10
      listen: 192.0.2.20
      user: dbre_side
      password: "{{ side_password }}"
      database: shop
  become: true
  become_user: postgres

- name: Remove the side instance
  dbre.recovery.postgresql_side_instance:
    path: /var/lib/postgresql/side/incident-7
    state: absent
  become: true
  become_user: postgres
"""

RETURN = r"""
instance:
  description:
    - The recovered instance. Without O(client), C(host) is null and the instance is reached by C(socket) only.
    - With O(client), C(sslrootcert) is the certificate (PEM) to verify the server by.
    - C(isolation) is what was read back of the running server that keeps it from production, and when.
  returned: when O(state) is V(paused) or V(promoted), outside of check mode
  type: dict
  sample:
    source: pgbackrest
    host: null
    port: 46111
    socket: /var/lib/postgresql/side/incident-7/run
    database: shop
    state: promoted
    reached:
      lsn: 0/1710030
      time: "2026-11-23T21:52:48.112+00:00"
      timeline: 1
    isolation: [{what: archive_mode, value: "off", read: "2026-11-23T21:52:49.020+00:00"}]
    path: /var/lib/postgresql/side/incident-7
    data_directory: /var/lib/postgresql/side/incident-7/data
    version_num: 150018
    system_identifier: "7711488204033580105"
    user: postgres
proof:
  description: What was read back from the running server.
  returned: when O(state) is V(paused) or V(promoted), outside of check mode
  type: dict
  sample:
    archive_mode: "off"
    archive_command: ""
    listen_addresses: ""
    primary_conninfo: ""
    shared_preload_libraries: ""
    max_logical_replication_workers: "0"
    config_file: /var/lib/postgresql/side/incident-7/postgresql.conf
    data_directory: /var/lib/postgresql/side/incident-7/data
    slots: 0
    subscription_workers: 0
    wal_receivers: 0
    wal_to_archive: 0
    system_identifier: "7711488204033580105"
    pause_state: paused
    replay_lsn: 0/1710030
    stopped: recovery stopping before WAL location (LSN) "0/1710030"
    prepared_rolled_back: []
    prepared_left: []
replay:
  description:
    - Duration of replay in seconds, and how many WAL files and bytes it read.
    - Where databases were left out of the restore, C(ignored_invalid_pages) counts, for each of them, the pages that
      replay wanted to change and passed over. One of another database would be an error.
  returned: when O(state) is V(paused) or V(promoted), outside of check mode
  type: dict
  sample:
    seconds: 0.4
    segments: 6
    bytes: 5308416
    ignored_invalid_pages:
      stock: 12
settings_raised:
  description: Settings that were raised during replay because production had raised them.
  returned: when O(state) is V(paused) or V(promoted), outside of check mode
  type: dict
  sample:
    max_connections: 200
repository:
  description:
    - Timelines and history files in the repository's archive, before the side instance was made and now. One more would
      mean that something had been archived by another server than production.
  returned: when O(state) is V(absent), outside of check mode
  type: dict
  sample:
    before: ["00000001"]
    after: ["00000001"]
    unchanged: true
state:
  description: State found before anything was done; V(unknown) of a server that runs and does not let the module in.
  returned: success
  type: str
  sample: stopped
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import TARGET_OPTIONS
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._side.images import Images
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state

TRANSACTION = {
    "lsn": {"type": "str", "required": True},
    "xids": {"type": "list", "elements": "int", "required": True},
    "relations": {"type": "list", "elements": "int", "required": True},
}


def main() -> None:
    client = {name: {"type": "str", "required": True} for name in ("address", "listen", "user", "database")}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["paused", "promoted", "stopped", "absent"], "default": "promoted"},
            "target": {"type": "dict", "options": TARGET_OPTIONS},
            "timeout": {"type": "int", "default": 3600},
            "images": {
                "type": "dict",
                "options": {
                    "database": {"type": "str", "required": True},
                    "transactions": {"type": "list", "elements": "dict", "options": TRANSACTION, "required": True},
                },
            },
            "client": {
                "type": "dict",
                "options": {**client, "password": {"type": "str", "required": True, "no_log": True}},
            },
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    state = module.params["state"]
    try:
        result: dict[str, Any] = ensure_state(
            SideInstance(module.params["path"]),
            state,
            target=module.params["target"],
            timeout=module.params["timeout"],
            client=module.params["client"],
            check_mode=module.check_mode,
            images_of=partial(Images, wanted=module.params["images"]) if module.params["images"] else None,
        )
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Production was not touched.")
    if module._diff:
        result["diff"] = {"before": {"state": result["state"]}, "after": {"state": state}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
