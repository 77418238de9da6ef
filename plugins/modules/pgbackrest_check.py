#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_check
short_description: Prove that WAL reaches the pgBackRest repository
version_added: "0.1.0"
description:
  - Runs C(pgbackrest check), which makes the server switch to a new WAL segment and waits until the old one is in
    the repository.
  - It proves archiving. It does not read backups.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  timeout:
    description:
      - Seconds to wait for the segment. Without it the configuration's C(archive-timeout) counts, 60 by default.
    type: int
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
    description: Runs nothing, as the proof needs a WAL switch; RV(proved) is V(false) then.
    support: full
  diff_mode:
    description: Changes no state that could differ.
    support: none
extends_documentation_fragment:
  - dbre.recovery.pgbackrest
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.pgbackrest_stanza
"""

EXAMPLES = r"""
- name: Prove archiving
  dbre.recovery.pgbackrest_check:
    stanza: main
  become: true
  become_user: postgres
"""

RETURN = r"""
proved:
  description: Whether a segment was seen to arrive. V(false) in check mode only.
  returned: success
  type: bool
  sample: true
segment:
  description: Name of the WAL segment that reached the repository.
  returned: success, not in check mode
  type: str
  sample: "000000010000000000000002"
archive_max:
  description: Last segment in the repository afterwards.
  returned: success, not in check mode
  type: str
  sample: "000000010000000000000002"
duration:
  description: Seconds until it was there.
  returned: success, not in check mode
  type: float
  sample: 0.61
archiver:
  description: The server's archive settings and its row of C(pg_stat_archiver).
  returned: success, not in check mode, and on failure
  type: dict
  sample: {"archive_mode": "on", "failed_count": 0, "last_archived_wal": "000000010000000000000002"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import (
    ARCHIVER_QUERY,
    archiving_advice,
    prove_archiving,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import require_continuous
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    ARGUMENT_SPEC,
    PgBackRest,
    refuse_root,
    stanza_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connect,
    connection_argument_spec,
    login_of,
)


def archiver(params: dict[str, Any]) -> dict[str, Any]:
    """Return the server's archive settings, statistics and present WAL segment."""
    connection = connect(login_of(params))
    try:
        with connection.cursor() as cursor:
            cursor.execute(ARCHIVER_QUERY)
            return dict(cursor.fetchone()[0])
    finally:
        connection.close()


def prove(module: AnsibleModule) -> dict[str, Any]:
    """Prove archiving and return the module's result; a failure carries what the server says of it."""
    refuse_root("check")
    pgbackrest = PgBackRest(module.run_command, **stanza_of(module.params))
    if module.check_mode:
        return {"changed": False, "proved": False}
    before = archiver(module.params)
    try:
        proof = prove_archiving(pgbackrest, before, module.params["timeout"])
        facts = stanza_facts(pgbackrest.info())
        for repo in facts["repositories"]:
            require_continuous(pgbackrest, facts, repo["repo"])
    except RecoveryError as error:
        after = archiver(module.params)
        raise RecoveryError(f"{error.msg}\n{archiving_advice(after)}", **error.details, archiver=after) from error
    return {"changed": False, "proved": True, "archiver": archiver(module.params), **proof}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ARGUMENT_SPEC, **connection_argument_spec(), "timeout": {"type": "int"}},
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(**prove(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
