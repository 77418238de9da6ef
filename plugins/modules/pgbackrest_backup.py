#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_backup
short_description: Take a pgBackRest backup, or ensure that a recent one exists
version_added: "0.1.0"
description:
  - Takes a backup. With O(max_age) it does so only where no recent backup of at least that type exists, so that a
    second run changes nothing.
  - A backup that holds pages with wrong checksums is kept but fails the task, with the files and pages. Nothing
    is expired then,
    so that a backup of damaged pages never pushes out a good one.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  type:
    description:
      - V(full) copies everything, V(diff) what changed since the last full backup, V(incr) what changed since the
        last backup.
      - Without a full backup to build on pgBackRest takes a full one.
    type: str
    choices: [full, diff, incr]
    default: incr
  max_age:
    description:
      - Do nothing when a backup of at least O(type) without errors ended no longer ago than this.
      - Seconds, or a number with V(s), V(m), V(h), V(d) or V(w).
    type: str
  annotations:
    description:
      - Names and values to store with the backup. Needs pgBackRest 2.41 or later.
    type: dict
    default: {}
  notes:
    description:
      - The same, but left out where this pgBackRest has no annotations.
    type: dict
    default: {}
  options:
    description:
      - Further options of C(pgbackrest backup) by their names without dashes.
      - A boolean becomes C(--name) or C(--no-name), a list repeats the option.
      - Secrets belong in pgBackRest's configuration file and are refused here by pgBackRest itself.
    type: dict
    default: {}
  expire:
    description:
      - Expire what retention does not keep once the backup is known to be whole, where pgBackRest's configuration lets
        a backup do that. V(false) leaves all that there is to the next expiry.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says which type of backup would be taken.
    support: full
  diff_mode:
    description: Shows the newest label before and the type that is taken after.
    support: full
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_info
"""

EXAMPLES = r"""
- name: Ensure a full backup that is younger than a day
  dbre.recovery.pgbackrest_backup:
    stanza: main
    type: full
    max_age: 24h
  become: true
  become_user: postgres

- name: Take an incremental backup before a change
  dbre.recovery.pgbackrest_backup:
    stanza: main
    type: incr
    annotations:
      reason: before release 4.2
    options:
      start-fast: true
      process-max: 4
  become: true
  become_user: postgres
"""

RETURN = r"""
backup:
  description:
    - The backup that was taken, or the recent one that made it unnecessary, as in the list of
      dbre.recovery.pgbackrest_info.
    - RV(ignore:size) is the whole cluster, RV(ignore:delta) what was copied, RV(ignore:repo_size) and
      RV(ignore:repo_delta) the same as stored, in bytes.
    - V(null) in check mode when one would be taken.
  returned: always
  type: dict
  sample:
    label: 20261123-214825F
    type: full
    start_time: "2026-11-23T21:48:25+00:00"
    stop_time: "2026-11-23T21:48:28+00:00"
    duration: 3
    size: 22992605
    delta: 22992605
    repo_size: 2823177
    repo_delta: 2823177
    start_lsn: 0/2000028
    stop_lsn: 0/2000100
    archive_start: "000000010000000000000002"
    archive_stop: "000000010000000000000002"
    error: false
    annotations: {}
    page_errors: []
type:
  description:
    - Type that was or would be taken, V(full) where there is nothing to build on; V(null) when none is needed.
  returned: success
  type: str
  sample: full
page_errors:
  description: Files of the backup and their pages whose checksum was wrong.
  returned: on failure by page errors
  type: list
  elements: dict
  sample: [{"file": "base/16384/16385", "pages": [3, 4, 5, 9]}]
whole_backups:
  description: Labels of the backups without errors.
  returned: on failure by page errors
  type: list
  elements: str
  sample: ["20261123-214825F"]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import (
    annotation_arguments,
    option_arguments,
    require_stanza,
    take_backup,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import (
    effective_type,
    recent_backup,
    stanza_facts,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    refuse_root,
    stanza_of,
)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Take the backup where one is needed and return the module's result."""
    params = module.params
    refuse_root("backup")
    pgbackrest = PgBackRest(module.run_command, **stanza_of(params))
    arguments = option_arguments(params["options"])
    arguments += annotation_arguments(params["annotations"], pgbackrest.version(), params["notes"])
    facts = stanza_facts(pgbackrest.info())
    if not module.check_mode:
        require_stanza(facts)
    if params["max_age"] is not None:
        age = parse_age(params["max_age"])
        recent = recent_backup(facts, params["type"], age, time.time(), params["repo"])
        if recent:
            return {"changed": False, "backup": {**recent, "page_errors": []}, "type": None}
    backup_type = effective_type(facts, params["type"], params["repo"])
    newest = facts["backups"][-1]["label"] if facts["backups"] else None
    result = {"changed": True, "type": backup_type, "backup": None}
    result["diff"] = {"before": {"newest_backup": newest}, "after": {"newest_backup": f"a new {backup_type} backup"}}
    if not module.check_mode:
        result["backup"] = take_backup(pgbackrest, facts, backup_type, arguments, expire=params["expire"])
        for warning in pgbackrest.warnings:
            module.warn(warning)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "type": {"type": "str", "choices": ["full", "diff", "incr"], "default": "incr"},
            "max_age": {"type": "str"},
            "annotations": {"type": "dict", "default": {}},
            "notes": {"type": "dict", "default": {}},
            "options": {"type": "dict", "default": {}},
            "expire": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**ensure(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **{"backup": None, **error.details})


if __name__ == "__main__":
    main()
