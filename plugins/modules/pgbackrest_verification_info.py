#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_verification_info
short_description: Whether a pgBackRest repository holds what a restore would need
version_added: "0.1.0"
description:
  - Looks at each repository of a stanza and says V(verified), V(failed) or V(could_not_verify), with a finding under
    a stable code for each reason. docs/verification.md lists the codes.
  - It restores nothing, and only a restore that starts PostgreSQL proves a backup. What was not checked is in
    RV(not_checked).
  - A verdict is a result. The task fails only where pgBackRest cannot even say what there is.
  - C(pgbackrest verify) reads the whole repository, which takes as long as reading it takes. Its exit status is not
    trusted, and what it prints must be understood.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  checks:
    description:
      - V(completes) is the last backup of each type, its age against its own schedule, and damaged pages.
      - V(size) is the size of the newest backup of each type against those of its own type before it.
      - V(continuity) is the WAL from the oldest kept backup to now, across timelines.
      - V(repository) is C(pgbackrest verify), which needs pgBackRest 2.45 or later.
    type: list
    elements: str
    choices: [completes, size, continuity, repository]
    default: [completes, size, continuity, repository]
  policy:
    description:
      - The backup policy, RV(dbre.recovery.backup_policy_info#module:policy).
      - Without it no age is judged, and only a full backup is asked for.
    type: dict
  waiting:
    description:
      - Names of WAL segments that the server has yet to archive, those with C(.ready) in C(pg_wal/archive_status).
        One of these that the archive lacks is being uploaded, and not lost.
    type: list
    elements: str
    default: []
  ignore:
    description:
      - Codes of findings that change no verdict, each with the reason. An empty reason is an error.
    type: dict
    default: {}
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
  - module: dbre.recovery.backup_policy_info
  - module: dbre.recovery.pgbackrest_check
    description: Proves that WAL gets into the archive now.
"""

EXAMPLES = r"""
- name: Look at everything but the contents of files
  dbre.recovery.pgbackrest_verification_info:
    stanza: main
    checks: [completes, size, continuity]
    policy: "{{ backup.policy }}"
  register: verification
  become: true
  become_user: postgres

- name: Let no verdict but one pass
  ansible.builtin.assert:
    that: verification.verdict == 'verified'
    fail_msg: "{{ verification.findings | map(attribute='message') | join('; ') }}"

- name: Know of a table that was dropped on purpose
  dbre.recovery.pgbackrest_verification_info:
    stanza: main
    ignore:
      SIZE_DROPPED: the archive of 2019 was dropped on 2026-11-20
  become: true
  become_user: postgres
"""

RETURN = r"""
verdict:
  description:
    - V(verified), V(failed), or V(could_not_verify) where something could not be told and nothing failed.
  returned: success
  type: str
  sample: failed
checks:
  description:
    - Each check with its own RV(ignore:verdict), RV(ignore:findings), RV(ignore:not_checked) and RV(ignore:facts).
    - The facts of V(continuity) say by archive from which segment to which, over which timelines, how many segments
      were found, and which are yet to come, being uploaded or lost.
  returned: success
  type: list
  elements: dict
  sample:
    - check: continuity
      verdict: verified
      findings: []
      not_checked: []
      facts:
        repositories:
          "1":
            15-1:
              first: "000000010000000000000003"
              last: "000000020000000000000009"
              timelines: [1, 2]
              found: 7
              expired: 0
              to_come: {"segments": 0, "names": []}
              uploading: {"segments": 0, "names": []}
              lost: {"segments": 0, "names": []}
findings:
  description: The findings of all checks. RV(ignore:ignored) is the reason in O(ignore), or V(null).
  returned: success
  type: list
  elements: dict
  sample:
    - code: WAL_CORRUPT
      repo: 1
      subject: "00000001000000000000000A"
      message: "WAL segment 00000001000000000000000A of archive 15-1: invalid checksum"
      ignored: null
not_checked:
  description: What was not checked, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - what: size of full backups in repository 1
      why: 1 backups before the newest are kept, and 3 are needed
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.examine import CHECKS, Examination, combined
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import check_ignored


def main() -> None:
    choices = list(CHECKS)
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "checks": {"type": "list", "elements": "str", "choices": choices, "default": choices},
            "policy": {"type": "dict"},
            "waiting": {"type": "list", "elements": "str", "default": []},
            "ignore": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        examination = Examination(
            PgBackRest(module.run_command, **stanza_of(params)),
            policy=params["policy"],
            ignore=check_ignored(params["ignore"]),
            waiting=params["waiting"],
            now=time.time(),
        )
        module.exit_json(changed=False, **combined(examination.run(params["checks"]), params["checks"]))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
