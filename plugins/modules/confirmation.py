#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: confirmation
short_description: Ask whether to carry out a plan
version_added: "0.1.0"
description:
  - Goes on when the plan was confirmed beforehand, or when somebody types C(yes) on the terminal; fails otherwise, and
    says how to confirm it. It never waits longer than O(timeout).
  - Where there is no terminal, or where a program reads the output (the callback C(json)), nobody is asked.
  - Works on the controller; no connection to the host of the task is made.
options:
  incident:
    description: Name of the incident whose plan it is.
    type: str
    required: true
  path:
    description: Folder of its record on the controller.
    type: str
    required: true
  digest:
    description: The plan's digest, RV(dbre.recovery.incident#module:record.digest).
    type: str
    required: true
  confirm:
    description:
      - What was said beforehand. V(yes) confirms whatever the plan is, a digest the plan that has it, and no other.
        V(plan) confirms nothing and asks nothing, which is no failure. With V(no), or empty, somebody is asked.
    type: str
    default: ""
  confirmed:
    description: Whether the plan was confirmed in an earlier run. Then nobody is asked.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 1800
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
- name: Ask whether to go on, unless that was said beforehand
  dbre.recovery.confirmation:
    incident: orders-dropped
    path: "{{ incident_result.record.path }}"
    digest: "{{ incident_result.record.digest }}"
    confirm: "{{ dr_confirm | default('') }}"
  register: answer
"""

RETURN = r"""
confirmed:
  description: Whether to carry out the plan; false with O(confirm=plan) only.
  returned: success
  type: bool
  sample: true
how:
  description: How it was confirmed.
  returned: success
  type: str
  sample: typed yes
"""
