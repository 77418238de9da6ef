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
    wrong with them - names that are nearly those of an option, values of another type, times that could be another
    moment elsewhere, groups that the inventory does not have.
  - Of what was given for this run alone (C(-e), the survey of a job runner) it also refuses what only another playbook
    knows, what the chosen source does not use, and what no playbook knows. In an inventory such words are those of
    other playbooks, or a site's own.
  - What is empty (a question of a survey that was not answered) counts as not given.
  - What the options are is in C(docs/options.md) of the collection.
  - Fails when a playbook that treats one primary at a time was given several hosts.
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
    - Values of all options, converted to their types, times in UTC, names one a text, former names of choices under
      those of today. Of what was not given, or is not of this playbook, the default, or null where there is none.
    - C(dr_incident_id) is made of the scenario and the time where it was not given.
  returned: success
  type: dict
  sample: {"dr_database": "shop", "dr_source": "pgbackrest", "dr_since": "2026-11-23T21:15:04+00:00", "dr_until": null}
"""
