#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_drill_damage_info
short_description: Tell whether all that a drill damaged is as it was
version_added: "0.1.0"
description:
  - Compares the copy with what M(dbre.recovery.postgresql_drill_damage) kept of it just before its damage; the rows of
    the damaged tables, the definition of every table of the database, and the commits that it had made. No row is
    shown.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  path:
    description:
      - Directory of the copy.
    type: path
    required: true
  database:
    description:
      - Database of the tables.
    type: str
    required: true
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
seealso:
  - module: dbre.recovery.postgresql_drill_damage
"""

EXAMPLES = r"""
- name: See whether everything is back
  dbre.recovery.postgresql_drill_damage_info:
    path: /var/lib/postgresql/dbre-recovery/drill-main
    database: shop
  register: compared
"""

RETURN = r"""
comparison:
  description:
    - C(equal) when nothing differs and no commit is lost; C(different) names what differs, C(lost) is how many of the
      C(written) commits are not back, and C(lost_since) when the first of them was made. Of a copy with a standby that
      took its place, C(old_primary) says what became of the copy.
  returned: success
  type: dict
  sample: {"different": [], "equal": true, "lost": 0, "lost_since": null, "written": 50}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill.crash import drilled


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "database": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        comparison = drilled(module.params["path"], module.params["database"]).compare()
    except (RecoveryError, OSError) as error:
        module.fail_json(msg=getattr(error, "msg", str(error)))
    module.exit_json(changed=False, comparison=comparison)


if __name__ == "__main__":
    main()
