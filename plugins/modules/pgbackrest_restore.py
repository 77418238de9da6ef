#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore
short_description: Restore a pgBackRest backup set into an isolated side instance
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Chooses the backup set that leads to a recovery target, makes sure that the target can be reached (backup, WAL,
    disk, PostgreSQL version, tablespaces), restores it below a directory of its own, and writes the settings with which
    M(dbre.recovery.postgresql_side_instance) brings it to the target.
  - The side instance cannot reach production. It has its own pgBackRest configuration with the repository and nothing
    else, archives nothing, listens nowhere, and carries no slots, preloaded libraries or subscriptions into life.
  - It is tuned to be thrown away. It is not safe against a crash of the host, and is restored again after one.
  - Run again after it was killed, it goes on; run again when all is done, it changes nothing.
extends_documentation_fragment:
  - dbre.recovery.contracts.required_target
  - dbre.recovery.pgbackrest
attributes:
  check_mode:
    description: Can run in check_mode and return the plan without modifying the target.
    support: full
  diff_mode:
    description: Returns the plan as the state after, when in diff mode.
    support: full
options:
  path:
    description:
      - Directory of the side instance. It must not exist, be empty, or be a side instance of the same O(incident).
      - At most 88 characters, because the instance's socket lies below it.
    type: path
    required: true
  incident:
    description:
      - Identifier of the incident. A run with the same identifier and path goes on with what is there.
    type: str
    required: true
  databases:
    description:
      - Databases that are needed. The others are restored as empty files, which takes less time and disk.
      - When one of them is not in the backup set (it is younger), or when the server writes no whole pages to WAL,
        everything is restored.
      - Where databases are left out, replay goes on over pages of theirs that are missing. How many there were is in
        the result of M(dbre.recovery.postgresql_side_instance).
    type: list
    elements: str
    default: []
  set:
    description:
      - Label of the backup set to restore. Without it, the newest that leads to the target.
      - A set of which the repository has lost a file is refused in the plan, and an older one that is whole is named.
      - Named for a side instance that was restored from another set, it is restored anew.
    type: str
  system_identifier:
    description:
      - Production's system identifier. A repository of another server is refused.
    type: str
  major_version:
    description:
      - Production's major version. A repository of another version is refused.
    type: int
  wal_segment_size:
    description:
      - Bytes of a WAL segment of production. Without it, it follows from the LSNs of backups and target, and pgBackRest
        2.33 tells none of backups.
    type: int
  production_databases:
    description:
      - Production's databases, dictionaries with C(name), C(oid) and C(size) in bytes. The OID tells which database of
        the backup set O(databases) means, as it may have had another name then; the size is for the estimate of the
        disk needed. With C(collate) and C(ctype), a locale that this host lacks is refused in the plan.
    type: list
    elements: dict
    default: []
  production_tablespaces:
    description:
      - Production's tablespaces, dictionaries with C(name), C(oid) and C(location). Each must be in the backup set.
    type: list
    elements: dict
    default: []
  production_wal:
    description:
      - WAL files that production's C(pg_wal) still has, as ranges with C(first) and C(last). One that the archive has
        lost is then no error of the plan (check mode), as M(dbre.recovery.postgresql_wal_archive) can put it back.
    type: list
    elements: dict
    default: []
  port:
    description:
      - Port of the side instance; V(0) takes one that is free.
    type: int
    default: 0
  process_max:
    description:
      - Number of processes that restore and fetch WAL; V(0) takes the number of cores.
    type: int
    default: 0
  bin_dir:
    description:
      - Directory of PostgreSQL's server programs. Without it, the usual places of the backup's major version.
    type: path
  superuser:
    description:
      - Name of production's superuser. The default is the name of the operating system user the module runs as.
    type: str
  state_path:
    description:
      - Directory in which restore tests on this host (dbre.recovery.pgbackrest_restore_test) left how fast it restores.
    type: path
    default: /var/lib/dbre-recovery
  client:
    description:
      - The one client that M(dbre.recovery.postgresql_side_instance) will let in over the network, to refuse what would
        not work before anything is restored.
    type: dict
    suboptions:
      address:
        description:
          - Address, network in CIDR notation, or name of the host that the client comes from.
        type: str
        required: true
      listen:
        description:
          - Address or name of this host to listen on.
        type: str
        required: true
seealso:
  - module: dbre.recovery.postgresql_side_instance
notes:
  - Run it as the operating system user that shall own the side instance; a PostgreSQL server cannot run as root.
"""

EXAMPLES = r"""
- name: Show the plan of a side restore
  dbre.recovery.pgbackrest_restore:
    stanza: main
    path: /var/lib/postgresql/side/incident-7
    incident: incident-7
    target: "{{ located.target }}"
  check_mode: true
  become: true
  become_user: postgres

- name: Restore one database to just before the drop
  dbre.recovery.pgbackrest_restore:
    stanza: main
    path: /var/lib/postgresql/side/incident-7
    incident: incident-7
    target: "{{ located.target }}"
    databases:
      - shop
    system_identifier: "{{ located.server.system_identifier }}"
    major_version: "{{ located.server.major }}"
    production_databases: "{{ located.server.databases }}"
    production_tablespaces: "{{ located.server.tablespaces }}"
  become: true
  become_user: postgres
"""

RETURN = r"""
plan:
  description:
    - What is (or was) done. Sizes are in bytes, times in UTC. C(shown) is what people are shown of it, each with a
      C(label) and C(lines).
  returned: success
  type: dict
  sample:
    set:
      label: 20261123-215243F_20261123-215247I
      type: incr
      start_time: "2026-11-23T21:52:47+00:00"
      stop_time: "2026-11-23T21:52:48+00:00"
      start_lsn: 0/1200028
      stop_lsn: 0/1300050
      size: 32340211
      error: false
      repo: 1
    other_sets:
      - 20261123-215243F
    target:
      type: lsn
      value: 0/1710030
      exclusive: true
      timeline: 1
      segment: "000000010000000000000017"
    timeline: 1
    wal:
      first: "000000010000000000000012"
      last: "000000010000000000000017"
      count: 6
      bytes: 100663296
      continuous: true
      waiting_for: null
      from_production: []
    disk:
      path: /var/lib/postgresql/side/incident-7
      needed: 109009048
      free: 69566824448
    databases:
      - shop
    database_oids:
      - 16384
    tablespaces:
      - name: fast
        oid: 16385
        location: /srv/fast
    process_max: 2
    path: /var/lib/postgresql/side/incident-7
    port: 46111
    host: recovery1
    bin_dir: /usr/lib/postgresql/15/bin
    major_version: 15
    system_identifier: "7711488204033580105"
    left_out:
      - name: stock
        oid: 16388
    set_databases:
      - name: postgres
        oid: 5
      - name: shop
        oid: 16384
      - name: stock
        oid: 16388
      - name: template0
        oid: 4
      - name: template1
        oid: 1
    seconds: 7.2
    expected:
      seconds: {restore: 6.9, replay: 1.2}
      bytes_per_second: {restore: 4686987, replay: 83886080}
      tests: 5
    beside:
      - incident: table-drop-20261101T031500Z
        path: /var/lib/postgresql/side/table-drop-20261101T031500Z
        created: "2026-11-01T03:15:22.913+00:00"
        remove: sudo -u postgres sh -c '/usr/lib/postgresql/15/bin/pg_ctl -D ... -m immediate stop; rm -r ...'
    shown:
      - {label: WAL to replay, lines: ["6 segments, 000000010000000000000012 to 000000010000000000000017"]}
sets:
  description: Every backup set and why it does not lead to the target.
  returned: when no set does
  type: list
  elements: dict
  sample:
    - label: 20261123-215243F
      stop_time: "2026-11-23T21:52:46+00:00"
      unfit: it ended at 0/D00050, after the target
missing_files:
  description: Files of the set that the repository has lost.
  returned: when there are such
  type: list
  elements: str
  sample:
    - 20261123-215243F/pg_data/base/16384/16385
whole_set:
  description: The newest set that leads to the target and of which the repository has all files.
  returned: when files of the newest one are missing
  type: str
  sample: 20261123-215243F
damaged_files:
  description: The blocks of each file that fail their checksums, for which pgBackRest gave the restore up.
  returned: when there are such
  type: dict
  sample:
    /var/lib/postgresql/side/incident-7/data/base/16384/16385: 3-5, 9
missing_wal:
  description: WAL files that are needed and not in the repository.
  returned: when there are such
  type: list
  elements: str
  sample:
    - "000000010000000000000014"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import TARGET_OPTIONS
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import refuse_root
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "stanza": {"type": "str", "required": True},
            "config": {"type": "path"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "repo": {"type": "int"},
            "path": {"type": "path", "required": True},
            "target": {"type": "dict", "required": True, "options": TARGET_OPTIONS},
            "incident": {"type": "str", "required": True},
            "databases": {"type": "list", "elements": "str", "default": []},
            "set": {"type": "str"},
            "system_identifier": {"type": "str"},
            "major_version": {"type": "int"},
            "wal_segment_size": {"type": "int"},
            "production_databases": {"type": "list", "elements": "dict", "default": []},
            "production_tablespaces": {"type": "list", "elements": "dict", "default": []},
            "production_wal": {"type": "list", "elements": "dict", "default": []},
            "port": {"type": "int", "default": 0},
            "process_max": {"type": "int", "default": 0},
            "bin_dir": {"type": "path"},
            "superuser": {"type": "str"},
            "state_path": {"type": "path", "default": "/var/lib/dbre-recovery"},
            "client": {
                "type": "dict",
                "options": {name: {"type": "str", "required": True} for name in ("address", "listen")},
            },
        },
        supports_check_mode=True,
    )
    check_arguments(module)

    def run(argv: list[str]) -> tuple[int, str, str]:
        rc, stdout, stderr = module.run_command(argv, handle_exceptions=False)
        return rc, stdout, stderr

    try:
        refuse_root("restore")
        restore = SideRestore(pick(Asked, module.params), run)
        plan, changed = restore.look() if module.check_mode else restore.restore()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Production was not touched.")
    result: dict[str, Any] = {"changed": changed, "plan": plan}
    if module._diff:
        result["diff"] = {"before": {} if changed else plan, "after": plan}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
