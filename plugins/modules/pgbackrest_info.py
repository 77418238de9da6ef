#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_info
short_description: Backups, archive and recovery window of a pgBackRest stanza
version_added: "0.1.0"
description:
  - Returns what pgBackRest knows of a stanza as data, with all times as ISO 8601 with a numeric offset, all sizes
    in bytes and all durations in seconds.
  - A stanza that was never made is no error; RV(info.status) says so.
  - Works with pgBackRest 2.33 and later. What an older version does not tell is V(null).
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  set:
    description:
      - Label of a backup to describe in detail, with its databases, tablespaces and the pages whose checksum was
        wrong.
    type: str
attributes:
  check_mode:
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_backup
"""

EXAMPLES = r"""
- name: Ask how far back a restore can go
  dbre.recovery.pgbackrest_info:
    stanza: main
  register: stanza
  become: true
  become_user: postgres

- name: Say it
  ansible.builtin.debug:
    msg: "{{ stanza.info.window.oldest_time }} to {{ stanza.info.window.newest_time }}"

- name: List the databases and damaged pages of one backup
  dbre.recovery.pgbackrest_info:
    stanza: main
    set: 20261123-214825F
  register: stanza
  become: true
  become_user: postgres
"""

RETURN = r"""
info:
  description: The stanza.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the stanza.
      type: str
    status:
      description:
        - Code and message as pgBackRest gives them. 0 is ok, 1 and 3 a stanza that does not exist, 2 one without
          backups.
      type: dict
    lock:
      description:
        - Whether a backup is running (RV(ignore:backup)), and its bytes in all and done where the version tells.
      type: dict
    repositories:
      description: Each repository with its cipher and status.
      type: list
      elements: dict
    databases:
      description: History of the clusters of this stanza; the highest id is the present one.
      type: list
      elements: dict
      sample: [{"id": 1, "repo": 1, "system_identifier": 7711487094474521737, "version": "15"}]
    archives:
      description: First and last WAL segment stored, by cluster and repository.
      type: list
      elements: dict
      sample:
        - id: 15-1
          database_id: 1
          repo: 1
          min: "000000010000000000000001"
          max: "000000010000000000000004"
    backups:
      description: All backups, the oldest first.
      type: list
      elements: dict
      sample:
        - label: 20261123-214825F_20261123-214829D
          type: diff
          prior: 20261123-214825F
          references: ["20261123-214825F"]
          repo: 1
          database_id: 1
          start_time: "2026-11-23T21:48:29+00:00"
          stop_time: "2026-11-23T21:48:30+00:00"
          duration: 1
          start_lsn: 0/4000028
          stop_lsn: 0/4000100
          archive_start: "000000010000000000000004"
          archive_stop: "000000010000000000000004"
          size: 31840480
          delta: 8905485
          repo_size: 4273085
          repo_delta: 1450788
          error: false
          annotations: {"why": "before release"}
          pgbackrest_version: "2.45"
    window:
      description:
        - From when to when a restore can go. V(null) without a backup that is known to be whole.
        - It begins where the oldest backup without page errors ended and ends when the last WAL segment was archived.
      type: dict
      sample:
        oldest_time: "2026-11-23T21:48:28+00:00"
        oldest_lsn: 0/2000100
        oldest_backup: 20261123-214825F
        newest_time: "2026-11-23T21:48:30+00:00"
        newest_segment: "000000010000000000000004"
    set:
      description:
        - The backup named by O(set), with RV(ignore:databases), RV(ignore:tablespaces) and
          RV(ignore:page_errors).
      returned: when O(set) is given
      type: dict
      sample:
        label: 20261123-214859F
        error: true
        databases: [{"name": "shop", "oid": 16384}]
        tablespaces: []
        page_errors: [{"file": "base/16384/16385", "pages": [3, 4, 5, 9]}]
version:
  description: Version of pgBackRest.
  returned: success
  type: str
  sample: "2.45"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import describe_backup, describe_stanza
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    stanza_of,
)


def main() -> None:
    module = AnsibleModule(argument_spec={**ARGUMENT_SPEC, "set": {"type": "str"}}, supports_check_mode=True)
    check_arguments(module)
    try:
        pgbackrest = PgBackRest(module.run_command, **stanza_of(module.params))
        version = pgbackrest.version()
        info = describe_stanza(pgbackrest)
        if module.params["set"]:
            info["set"] = describe_backup(pgbackrest, info, module.params["set"])
        module.exit_json(changed=False, info=info, version=f"{version[0]}.{version[1]}")
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
