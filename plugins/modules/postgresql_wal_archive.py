#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_wal_archive
short_description: Have a WAL segment in the archive
version_added: "0.1.0"
description:
  - Ensures that a WAL segment of a running primary is in pgBackRest's archive, so that a restore can replay up to it.
  - When the server is still writing to the segment, it is made to switch to the next one. Otherwise nothing is changed,
    unless the archive has lost a segment that C(pg_wal) still has.
  - Waits until the archive has the segment. Fails at once when the archiver reports a failure after the module began,
    when archiving is off, and when the segment is nowhere.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  segment:
    description:
      - File name of the segment, 24 hexadecimal digits.
    type: str
    required: true
  lost:
    description:
      - File names of segments that the archive should have and has lost. Those that C(pg_wal) still has are archived
        again, after the headers of their pages were looked at. So is O(segment).
    type: list
    elements: str
    default: []
  timeline:
    description:
      - Timeline that the server must be on. Without it, the server's own.
    type: int
  timeout:
    description:
      - How long to wait for the segment to be archived, in seconds.
    type: int
    default: 300
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
    description: Says whether it would switch WAL, and does not wait.
    support: full
  diff_mode:
    description: RV(state) says it all.
    support: none
extends_documentation_fragment:
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.postgresql_recovery_target_info
"""

EXAMPLES = r"""
- name: Have the WAL up to the target in the archive
  dbre.recovery.postgresql_wal_archive:
    stanza: main
    segment: "{{ lost.target.segment }}"
  become: true
  become_user: postgres
"""

RETURN = r"""
segment:
  description: The segment.
  returned: success
  type: str
  sample: "000000010000000000000007"
state:
  description:
    - V(archived) when it is in the archive. In check mode also V(waiting), when it is complete and the archiver has yet
      to take it, and V(current), when the server would be made to switch.
  returned: success
  type: str
  sample: archived
put_back:
  description: Segments that the archive had lost and that were, or in check mode would be, archived again.
  returned: success
  type: list
  elements: str
  sample: []
switched:
  description: Whether the server was, or in check mode would be, made to switch to a new segment.
  returned: success
  type: bool
seconds:
  description: How long it took, in seconds.
  returned: success
  type: float
  sample: 0.4
"""

import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC as PGBACKREST_SPEC
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import stanza_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.archiving import ensure_archived


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "segment": {"type": "str", "required": True},
            "lost": {"type": "list", "elements": "str", "default": []},
            "timeline": {"type": "int"},
            "timeout": {"type": "int", "default": 300},
            **connection_argument_spec(),
            **PGBACKREST_SPEC,
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    spool = tempfile.mkdtemp(prefix="wal-archive-", dir=module.tmpdir)
    try:
        result = ensure_archived(
            login_of(params),
            params["segment"],
            spool,
            StanzaArchive(**stanza_of(params), parallel=1),
            timeout=params["timeout"],
            timeline=params["timeline"],
            lost=params["lost"] or [],
            check_mode=module.check_mode,
        )
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
