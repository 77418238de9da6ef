#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore_test
short_description: Restore a backup beside, check what it holds, remove it, and keep what was found
version_added: "0.1.0"
description:
  - Looks at the repository as dbre.recovery.pgbackrest_verification_info does, restores a backup, starts PostgreSQL,
    replays WAL, checks what is there, and removes it whatever happened.
  - Says V(verified), V(failed) or V(could_not_verify), with a finding under a stable code for each reason.
    docs/verification.md lists the codes and describes the files. No row is ever shown.
  - The attempt is written down before anything is tried, so that one that was killed is seen. Of two tests of a stanza
    at the same time on one host, the later one fails and touches nothing.
  - A verdict is a result, and no failure of the task.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - Directory in which the backup is restored. It is removed in the end.
    type: path
    required: true
  directory:
    description:
      - Directory of the history, C(verification-STANZA.json), and below C(verifications/ID) of the report.
    type: path
    required: true
  host:
    description:
      - Name of this host in the report.
    type: str
  superuser:
    description:
      - Name of the superuser in the backup. The default is the operating system user that the module runs as.
    type: str
  bin_dir:
    description:
      - Directory of PostgreSQL's server programs. Without it, the usual places of the backup's major version.
    type: path
  tier:
    description:
      - Name of the policy's tier, for the report.
    type: str
  policy:
    description:
      - The backup policy, RV(dbre.recovery.backup_policy_info#module:policy).
    type: dict
  point:
    description:
      - To which moment is restored. V(latest) is the end of the archive, V(random) a moment in the window, V(kept) the
        oldest one of which an earlier test has kept fingerprints of production, which are compared again; or an LSN, or
        a time with its offset.
    type: str
    default: latest
  seed:
    description:
      - Decides what chance chooses. The default is another one each time, which the report holds.
    type: str
    default: ""
  ignore:
    description:
      - Codes of findings that change no verdict, each with the reason. An empty reason is an error.
    type: dict
    default: {}
  timeout:
    description:
      - Seconds that replay may take.
    type: int
    default: 14400
  signing_key:
    description:
      - File of a private SSH key, or of the public one where an agent has the private one, that signs C(report.json)
        into C(report.json.sig). docs/verification.md says how that is verified.
    type: path
  compare:
    description:
      - Fingerprints of production, RV(dbre.recovery.postgresql_snapshot_info#module:snapshot). The test restores to
        where they were taken, instead of O(point), compares, and keeps them.
    type: dict
  compare_failed:
    description:
      - Why there is no O(compare) although it was asked for. The backup is not verified then, whatever else was
        checked.
    type: str
  compare_unknown:
    description:
      - Why no O(compare) was asked for, for the report.
    type: str
    default: no database was named for it (backup_verification_compare)
  assertions:
    description:
      - Questions that the restored databases are asked, as a role that may read all data and nothing else.
      - PostgreSQL 14 or later is needed for that.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is asked, for the report.
        type: str
        required: true
      database:
        description: Name of the database.
        type: str
        required: true
      sql:
        description: A query with one row of one column, a number. Of no other answer anything is shown.
        type: str
        required: true
      expect:
        description: A comparison with a number, such as C(>= 1000).
        type: str
        required: true
  system_identifier:
    description:
      - Production's system identifier, where it was asked. Backups of another cluster are not verified.
    type: str
  timeline:
    description:
      - Production's timeline, where it was asked. A newer one in the archive is another server's.
    type: int
  loss:
    description:
      - What production had and the archive lacked, RV(dbre.recovery.postgresql_unarchived_info#module:loss). Without it
        no RPO is measured.
    type: dict
  loss_unknown:
    description:
      - Why there is no O(loss), for the report.
    type: str
    default: production was not asked
attributes:
  check_mode:
    description: Looks at the repository only, and writes nothing.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_verification_info
  - module: dbre.recovery.postgresql_unarchived_info
notes:
  - Run it as the operating system user that is to own what is restored. It need not be able to write the repository.
"""

EXAMPLES = r"""
- name: Restore the newest backup beside, and check it
  dbre.recovery.pgbackrest_restore_test:
    stanza: main
    path: /var/lib/postgresql/dbre-recovery/verify-main
    directory: /var/lib/dbre-recovery
    policy: "{{ backup.policy }}"
  become: true
  become_user: postgres
  register: tested
"""

RETURN = r"""
report:
  description:
    - What C(report.json) holds. C(seconds) are those of each phase, C(rto) and C(rpo) what was measured against the
      policy, C(checks) the answers, C(removed) the proof that nothing is left.
  returned: success
  type: dict
text:
  description: The same for people.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC, refuse_root
from ansible_collections.dbre.recovery.plugins.module_utils._verification.record import shown
from ansible_collections.dbre.recovery.plugins.module_utils._verification.restore_test import Request, RestoreTest


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "path": {"type": "path", "required": True},
            "directory": {"type": "path", "required": True},
            "host": {"type": "str"},
            "superuser": {"type": "str"},
            "bin_dir": {"type": "path"},
            "tier": {"type": "str"},
            "policy": {"type": "dict"},
            "point": {"type": "str", "default": "latest"},
            "seed": {"type": "str", "default": "", "no_log": False},
            "ignore": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 14400},
            "signing_key": {"type": "path", "no_log": False},
            "compare": {"type": "dict"},
            "compare_failed": {"type": "str"},
            "compare_unknown": {
                "type": "str",
                "default": "no database was named for it (backup_verification_compare)",
            },
            "assertions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("name", "database", "sql", "expect")},
            },
            "system_identifier": {"type": "str"},
            "timeline": {"type": "int"},
            "loss": {"type": "dict"},
            "loss_unknown": {"type": "str", "default": "production was not asked"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        refuse_root("restore")
        test = RestoreTest(pick(Request, module.params), module.run_command)
        report = test.dry_run() if module.check_mode else test.run()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. The history of restore tests could not be written, so none is to be trusted.")
    module.exit_json(changed=not module.check_mode, report=report, text=shown(report))


if __name__ == "__main__":
    main()
