#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_audit_info
short_description: What an audit needs to know of the backups of a host
version_added: "0.1.0"
description:
  - Returns in one step what C(pgbackrest info) says of a stanza, how long finished WAL has waited for its archive, and
    what restore tests on this host have found.
  - A stanza that was never made, or a repository that cannot be read, is no error; it is told.
  - How long WAL waits is read from the data directory that pgBackRest's configuration names (C(pg1-path)), without a
    session on the server.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  stanza:
    description:
      - Name of the stanza. Without it only restore tests are looked for.
    type: str
  config:
    description:
      - Configuration file of pgBackRest. Where none is named, the one that pgBackRest finds by itself.
    type: path
  executable:
    description:
      - Name or path of the pgBackRest program.
    type: str
    default: pgbackrest
  state_path:
    description:
      - Directory in which restore tests leave what they found, as C(verification-STANZA.json).
    type: path
    default: /var/lib/dbre-recovery
attributes:
  check_mode:
    description: Changes nothing, in check mode or out of it.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.backup_audit
  - module: dbre.recovery.pgbackrest_info
"""

EXAMPLES = r"""
- name: Ask what the backups of the stanza are worth
  dbre.recovery.backup_audit_info:
    stanza: main
  register: found
  become: true
  become_user: postgres
"""

RETURN = r"""
found:
  description:
    - The stanza. Times are seconds since the epoch; what is not known is V(null). RV(ignore:lag_seconds) is how long
      finished WAL that the repository does not have has been waiting. RV(ignore:other_cluster) says so where the
      backups are of another cluster than the primary on this host, or than another repository's.
  returned: when O(stanza) is given
  type: dict
  sample:
    stanza: main
    status: {"code": 0, "message": "ok"}
    system_identifier: 7711487094474521737
    repositories:
      "1":
        status: {"code": 0, "message": "ok"}
        backups:
          full: {"label": "20261123-214825F", "ended": 1795470508.0, "usual_seconds": 3, "errors": false}
          diff: {"label": "20261123-214825F", "ended": 1795470508.0, "usual_seconds": 3, "errors": false}
          incr: {"label": "20261123-214825F", "ended": 1795470508.0, "usual_seconds": 3, "errors": false}
        reaches_back_to: 1795470508.0
        page_errors: false
        lag_seconds: 0.0
        other_cluster: null
restore_tests:
  description:
    - Histories of restore tests by stanza, the newest run last; V(null) for one that cannot be understood.
  returned: success
  type: dict
  sample: {"main": [{"ended": 1795470576.0, "verdict": "verified", "rto_seconds": 61.5, "rpo_seconds": 0.4}]}
now:
  description: This host's clock, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795470600.2
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import Finished, finished_segments
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.audit import (
    ended_tests,
    local_cluster,
    summary,
)
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import parse
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import IN_PRODUCTION, control_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

PATIENCE = 60.0  # seconds for a repository to answer
KEPT = 20  # runs of each history
HISTORY = re.compile(r"verification-(.+)\.json")
# Where pgBackRest looks (src/config/parse.c), and where it looked before.
USUAL = ("/etc/pgbackrest/pgbackrest.conf", "/etc/pgbackrest.conf")


def histories(state_path: str, now: float) -> dict[str, Optional[list[dict[str, Any]]]]:
    """Each stanza's restore tests; None where they cannot be understood."""
    found: dict[str, Optional[list[dict[str, Any]]]] = {}
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(state_path)):
            matched = HISTORY.fullmatch(name)
            if matched:
                found[matched[1]] = history(os.path.join(state_path, name), now)
    return found


def history(path: str, now: float) -> Optional[list[dict[str, Any]]]:
    try:
        with open(path, encoding="utf-8") as file:
            return ended_tests(parse(file.read()), now)[-KEPT:]
    except (OSError, ValueError):
        return None


def configurations(config: Optional[str]) -> Iterator[str]:
    """The texts of pgBackRest's configuration, as far as this user may read them."""
    for path in [config] if config else USUAL:
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            yield file.read()


def of_primary(stanza: str, config: Optional[str]) -> tuple[Optional[list[Finished]], Optional[str]]:
    """Finished segments of the primary that runs on this host, and its system identifier.

    None where there is none, or it cannot be looked at.
    """
    try:
        data_directory = next(filter(None, (local_cluster(text, stanza) for text in configurations(config))), None)
        if data_directory is None:
            return None, None
        with open(os.path.join(data_directory, "global", "pg_control"), "rb") as file:
            control = control_facts(file.read(512))
        if control["state"] != IN_PRODUCTION:
            return None, None
        return finished_segments(data_directory), str(control["system_identifier"])
    except (OSError, ValueError):
        return None, None


def look(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    result: dict[str, Any] = {"restore_tests": histories(params["state_path"], time.time())}
    if params["stanza"]:
        # Before pgBackRest is asked, so that what comes meanwhile is no lag.
        began = time.time()
        finished, identifier = of_primary(params["stanza"], params["config"])
        settings = {name: params[name] for name in ("stanza", "config", "executable")}
        facts = stanza_facts(PgBackRest(module.run_command, **settings).info(patience=PATIENCE))
        result["found"] = summary(facts, finished, began, identifier)
    return {**result, "now": time.time()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "stanza": {"type": "str"},
            "config": {"type": "path"},
            "executable": {"type": "str", "default": "pgbackrest"},
            "state_path": {"type": "path", "default": "/var/lib/dbre-recovery"},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        module.exit_json(changed=False, **look(module))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


if __name__ == "__main__":
    main()
