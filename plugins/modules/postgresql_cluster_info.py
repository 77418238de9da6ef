#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster_info
short_description: Tell all of one server, running or dead, that a failover has to know
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Looks at the server of a port, changes nothing, and needs one task a host. A server that does not run is read from
    its control file, its configuration files and its C(pg_wal).
  - Where WAL ends is proved by C(pg_waldump), which a file's name and size do not.
  - Hand on RV(state) whole, with the name of the host; P(dbre.recovery.failover_plan#filter) decides from the states of
    all hosts.
options:
  data_directory:
    description:
      - Data directory, where Debian's C(pg_lsclusters) does not know the server.
    type: path
  service:
    description:
      - Unit that runs the server. The default is C(postgresql@VERSION-NAME) of Debian, elsewhere C(postgresql-VERSION).
    type: str
  read_from:
    description:
      - LSN from which WAL is read, to count what was committed since. Without it, or where WAL does not reach so far
        back or forward, it is read from where the server stands.
    type: str
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
  stanza:
    description:
      - pgBackRest's stanza of this cluster, to see which timelines its archive has. Without it no archive is asked.
    type: str
  config:
    description:
      - pgBackRest's configuration file.
    type: path
  executable:
    description:
      - pgBackRest's program.
    type: str
    default: pgbackrest
  recorded:
    description:
      - File in which the role P(dbre.recovery.postgresql_standby#role) has written down settings of the primary.
    type: path
attributes:
  check_mode:
    support: full
    description: Changes nothing in any case.
  diff_mode:
    support: none
    description: Changes nothing.
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_failover
notes:
  - Run it as the operating system user that owns the data directory, and as a superuser of the database.
"""

EXAMPLES = r"""
- name: See how a server is
  dbre.recovery.postgresql_cluster_info:
    login_unix_socket: /var/run/postgresql
    login_port: 5432
  become: true
  become_user: postgres
  register: found
"""

RETURN = r"""
state:
  description:
    - What is known of the server. What only a running server knows is null of a dead one.
    - C(end) is behind the last valid record in C(pg_wal), C(first) the oldest segment there, C(commits) and
      C(last_commit) those from C(read_from) on.
    - C(timeline) is a number, which says nothing without C(history), the text of that timeline's history file.
    - C(ready) are segments that wait to be archived. C(lacks) are settings that are lower than the primary had them,
      with which replay stops.
    - C(managers) are programs that fail over by themselves, each with the C(command) to let it do so.
    - C(patroni) is there where Patroni is one of them - what its members are, as C(patronictl) says on this host, the
      settings of its dynamic configuration that decide something and a checksum of all of it, or in C(unread) why it
      cannot be asked.
    - Of C(primary_conninfo) only C(upstream) is told, never a password.
    - C(recorded) are settings of the primary that were written down while it lived, in O(recorded) and in
      annotations of backups.
    - C(archived) are history files that the archive has of this timeline and those after it, by number; without
      O(stanza), or where the archive cannot be read, none.
  returned: success
  type: dict
  sample:
    reachable: true
    running: true
    answers: true
    why: ""
    database: postgres
    in_recovery: true
    stands_by: true
    service: postgresql@17-main
    masked: false
    version_num: 170006
    major: 17
    system_identifier: "7711488204033580105"
    data_directory: /var/lib/postgresql/17/main
    bin_dir: /usr/lib/postgresql/17/bin
    cluster_state: in archive recovery
    segment_size: 16777216
    timeline: 1
    history: ""
    read_from: 0/6000148
    end: 0/6000148
    first: "000000010000000000000005"
    commits: 0
    last_commit: null
    receive_lsn: 0/6000148
    replay_lsn: 0/6000148
    replay_time: "2026-11-23T18:01:11.201000+00:00"
    primary_lsn: 0/6000148
    primary_time: "2026-11-23T18:01:12.000417+00:00"
    receiver: streaming
    upstream: {host: 192.0.2.10, port: "5432", user: dbre_db2, name: dbre_db2, slot: ""}
    paused: false
    held: false
    delay_seconds: 0.0
    ready: 0
    slots: []
    prepared: 0
    lacks: []
    archive_mode: "on"
    archives: true
    restores: true
    synchronous_standby_names: ""
    synchronous_commit: "on"
    managers: []
    archived: {}
    archive_unread: ""
    recorded: []
"""

import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.archived import archived_histories
from ansible_collections.dbre.recovery.plugins.module_utils._failover.recorded import recorded
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import look
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def ask_archive(module: AnsibleModule, stanza: dict[str, Any], timeline: int, spool: str) -> dict[str, Any]:
    """What the archive has of this timeline and those after it, and its backups; or why it cannot be read."""
    try:
        archived = archived_histories(StanzaArchive(**stanza, parallel=1), timeline, spool)
        backups = stanza_facts(PgBackRest(module.run_command, **stanza).info())["backups"]
        return {"archived": archived, "backups": backups}
    except RecoveryError as error:
        return {"archived": {}, "archive_unread": error.msg, "backups": []}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_directory": {"type": "path"},
            "service": {"type": "str"},
            "read_from": {"type": "str"},
            "bin_dir": {"type": "path"},
            "stanza": {"type": "str"},
            "config": {"type": "path"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "recorded": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    spool = tempfile.mkdtemp(prefix="archived-", dir=module.tmpdir)
    told: dict[str, Any] = {"archived": {}, "archive_unread": ""}
    try:
        state = look(
            login_of(params),
            data=params["data_directory"],
            service=params["service"],
            bin_dir=params["bin_dir"],
            read_from=params["read_from"],
        )
        if params["stanza"]:
            stanza = {name: params[name] for name in ("stanza", "config", "executable")}
            told.update(ask_archive(module, stanza, state["timeline"], spool))
        told["recorded"] = recorded(params["recorded"], told.pop("backups", []), state["system_identifier"])
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, state={**state, **told})


if __name__ == "__main__":
    main()
