#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_evidence
short_description: Keep evidence of an incident before anything moves
version_added: "0.1.0"
description:
  - Ensures that the state of a running server at the beginning of an incident is kept on its host. That is what
    C(pg_controldata) says, settings, all C(pg_stat_*), the end of the server's log, the records at the end of WAL and
    which files of it are there, and the damaged pages themselves.
  - Each file has its SHA-256 in C(SHA256SUMS), whose own hash belongs in the incident record. A second run compares
    them, and fails where one is no longer what was kept.
  - The files may hold what users wrote, so they stay on the host, in a directory that only the server's user can read.
    What looks like a secret is masked in texts.
  - Nothing of the server is changed.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  incident:
    description:
      - Identifier of the incident, which names the directory.
    type: str
    required: true
  path:
    description:
      - Directory for all incidents. Made where it is missing.
    type: path
    default: ~/dbre-evidence
  damages:
    description:
      - RV(dbre.recovery.postgresql_corruption_info#module:damages), whose pages are kept, too.
    type: list
    elements: dict
    default: []
  bin_dir:
    description:
      - Directory of PostgreSQL's programs. Without it the usual places are looked at.
    type: path
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.postgresql) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dbre.recovery.postgresql
  check_mode:
    description: Writes nothing, and says whether it would.
    support: full
  diff_mode:
    description: Does not show differences.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_corruption_info
notes:
  - Run it as the operating system user that owns the server.
"""

EXAMPLES = r"""
- name: Keep what there is before anything moves
  dbre.recovery.postgresql_evidence:
    incident: corruption-20261123T220000Z
    damages: "{{ corruption.damages }}"
  become: true
  become_user: postgres
"""

RETURN = r"""
path:
  description: Directory of the incident on the host.
  returned: success
  type: str
  sample: /var/lib/postgresql/dbre-evidence/corruption-20261123T220000Z
files:
  description: What was kept, with sizes in bytes. Empty in check mode where nothing was kept yet.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "controldata.txt", "size": 2612, "sha256": "5e1f...c9"}]
sha256:
  description: Hash of C(SHA256SUMS); V(null) in check mode where nothing was kept yet.
  returned: success
  type: str
  sample: 0b7c...1d
not_kept:
  description: What could not be kept, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"what": "the server's log", "why": "it goes to no file that is known here"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.entering import enter
from ansible_collections.dbre.recovery.plugins.module_utils._verification.kept import Evidence


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "incident": {"type": "str", "required": True},
            "path": {"type": "path", "default": "~/dbre-evidence"},
            "damages": {"type": "list", "elements": "dict", "default": []},
            "bin_dir": {"type": "path"},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        evidence = Evidence(params["path"], params["incident"])
        files = evidence.known()
        changed = files is None
        if changed and not module.check_mode:
            session = enter(login_of(params), None, "keeping evidence")
            try:
                bin_dir = find_bin_dir(session.server_version // 10000, params["bin_dir"])
                files = evidence.keep(session, bin_dir, module.run_command, params["damages"])
            finally:
                session.close()
        digest = None if files is None else evidence.digest()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"evidence cannot be kept in {params['path']}: {error}. Nothing was touched.")
    module.exit_json(
        changed=changed, path=str(evidence.path), files=files or [], sha256=digest, not_kept=evidence.omitted
    )


if __name__ == "__main__":
    main()
