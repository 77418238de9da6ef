#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_timeline_archive
short_description: Prove that each repository has the timeline of a new primary
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Has the new primary switch to a new WAL segment, waits until that and the history of its timeline are archived, and
    reads both back from each repository.
  - Segments of the timeline before that no repository got from the old primary are archived from C(pg_wal), since older
    backups could not be restored across the failover without them.
attributes:
  check_mode:
    support: full
    description: Returns what would be archived.
  diff_mode:
    support: none
    description: WAL has no readable difference.
options:
  stanza:
    description:
      - pgBackRest's stanza of this cluster. Without it only the archiver's own word is taken.
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
  timeout:
    description:
      - Seconds to wait for the archiver.
    type: int
    default: 300
extends_documentation_fragment:
  - dbre.recovery.postgresql
notes:
  - Run it as the operating system user that owns the data directory, and as a superuser of the database.
"""

EXAMPLES = r"""
- name: Prove that the new primary archives
  dbre.recovery.postgresql_timeline_archive:
    stanza: main
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
archiving:
  description: Whether the new primary archives at all.
  returned: success
  type: bool
pushed:
  description: Segments of the timeline before that were archived now.
  returned: success
  type: list
  elements: str
  sample: []
proved:
  description: Of each repository the files that were read back from it.
  returned: success
  type: list
  elements: dict
  sample: [{archive: repository 1, files: [00000002.history, "000000020000000000000006"]}]
segment:
  description: The segment of the new timeline that was archived.
  returned: when RV(archiving) is V(true), and not in check mode
  type: str
  sample: "000000020000000000000006"
"""

import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._failover.archived import prove_archived
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def archives_of(stanza: dict[str, Any]) -> dict[str, StanzaArchive]:
    """Each repository of the stanza by itself, by what people call it."""
    keys = [repo["key"] for repo in PgBackRest(run, **stanza).info().get("repo") or []]
    return {f"repository {key}": StanzaArchive(**stanza, repo=key, parallel=1) for key in keys}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "stanza": {"type": "str"},
            "config": {"type": "path"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "timeout": {"type": "int", "default": 300},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    spool = tempfile.mkdtemp(prefix="archived-", dir=module.tmpdir)
    stanza = {name: params[name] for name in ("stanza", "config", "executable")}
    try:
        result = prove_archived(
            login_of(params),
            archives_of(stanza) if params["stanza"] else {},
            spool,
            timeout=params["timeout"],
            check_mode=module.check_mode,
        )
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. The new primary works. Run this again when that is mended.")
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
