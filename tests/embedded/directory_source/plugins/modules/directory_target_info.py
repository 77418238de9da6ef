# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the damage in production's WAL and in a directory of WAL."""

from __future__ import annotations

import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.acme.files.plugins.module_utils.directory import Directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "directory": {"type": "path", "required": True},
            "database": {"type": "str", "required": True},
            "relations": {"type": "list", "elements": "str", "default": []},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "kinds": {"type": "list", "elements": "str", "default": ["auto"]},
            "min_rows": {"type": "int", "default": 1000},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    spool = tempfile.mkdtemp(prefix="recovery-target-", dir=module.tmpdir)
    try:
        asked = ("database", "relations", "schemas", "kinds", "min_rows")
        search = Search(
            login_of(params),
            make_request(**{name: params[name] for name in asked}),
            spool,
            Directory(params["directory"]),
            bin_dir=params["bin_dir"],
        )
        try:
            result = search.find()
        finally:
            search.close()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
