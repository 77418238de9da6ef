#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dr_options
short_description: Check the options that a disaster-recovery playbook was given
version_added: "0.1.0"
description:
  - Looks at all variables whose names start with C(dr_), wherever they were given, and fails with everything that is
    wrong with them - names that are not known (with the nearest one that is), names that only another playbook knows or
    that the chosen source does not use, values of another type, times that could be another moment elsewhere, groups
    that the inventory does not have.
  - What the options are is in C(docs/options.md) of the collection.
  - Works on the controller; no connection to the host of the task is made.
options:
  playbook:
    description: Name of the playbook whose options are checked, such as V(dr-table-drop).
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: Nothing is ever changed.
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Refuse options that are not known or mean nothing
  dbre.recovery.dr_options:
    playbook: dr-table-drop
  register: checked
"""

RETURN = r"""
options:
  description:
    - Values of all options of the playbook, converted to their types, times in UTC, former names of choices under
      those of today. Of what was not given, the default, or null where there is none.
  returned: success
  type: dict
  sample: {"dr_database": "shop", "dr_source": "pgbackrest", "dr_since": "2026-11-23T21:15:04+00:00", "dr_until": null}
"""
