#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drill
short_description: Recover a copy of production by a scenario's own playbook, and judge what came of it
version_added: "0.1.0"
description:
  - V(begun) notes in C(drill.json) of the record where the copy will be, and refuses the id of a real incident; V(read)
    returns what it noted.
  - V(recovered) runs a disaster-recovery playbook in a process of its own, with an inventory in which there is the copy
    alone, so that it cannot find production. That it fails is a result, and no failure of the task.
  - V(judged) brings what the drill has found into C(report.json) and C(report.html) of the recovery, and fails unless
    everything is recovered and proved, the copy was isolated, and nothing is left.
  - Nothing is done on the host of the task.
author:
  - the dbre.recovery authors (!UNKNOWN)
options:
  state:
    description:
      - Which of the four.
    type: str
    choices: [read, begun, recovered, judged]
    required: true
  id:
    description:
      - Name of the drill, and of the incident record that its recovery keeps.
    type: str
    required: true
  dir:
    description:
      - Folder on the controller with the records.
    type: path
    required: true
  host:
    description:
      - Inventory name of the host that the copy is on. Required with O(state=begun) and O(state=recovered).
    type: str
  path:
    description:
      - Directory of the copy there. Required with O(state=begun).
    type: str
  stanza:
    description:
      - Stanza of production. Required with O(state=begun).
    type: str
  playbook:
    description:
      - The scenario's playbook. Required with O(state=recovered).
    type: path
  options:
    description:
      - What it is given (C(dr_*)).
    type: dict
    default: {}
  copy:
    description:
      - The copy, RV(dbre.recovery.pgbackrest_drill_copy#module:drill_copy), combined with
        RV(dbre.recovery.postgresql_drill_standby#module:drill_pair) where it has a standby.
    type: dict
    default: {}
  damage:
    description:
      - What was done to it, RV(dbre.recovery.postgresql_drill_damage#module:damage).
    type: dict
    default: {}
  run:
    description:
      - What O(state=recovered) returned.
    type: dict
    default: {}
  comparison:
    description:
      - RV(dbre.recovery.postgresql_drill_damage_info#module:comparison).
    type: dict
    default: {}
  removed:
    description:
      - What proves that the copy is gone, RV(dbre.recovery.pgbackrest_drill_copy#module:removed).
    type: dict
    default: {}
  failed:
    description:
      - Why the drill itself could not go on.
    type: str
    default: ""
  kept:
    description:
      - Whether the copy stays, as was asked. Its inventory is then kept beside the record.
    type: bool
    default: false
attributes:
  check_mode:
    description: There is no copy in check mode, so that nothing can be drilled.
    support: none
  diff_mode:
    description: There is nothing that could differ.
    support: none
"""

EXAMPLES = r"""
- name: Recover by the scenario's own playbook
  dbre.recovery.drill:
    state: recovered
    id: drill-20261129T180000Z
    dir: incidents
    host: recovery1
    playbook: "{{ playbook_dir }}/dr-table-drop.yml"
    options: {dr_database: shop, dr_tables: [public.orders]}
    copy: "{{ made.drill_copy }}"
  register: run
"""

RETURN = r"""
drill:
  description: Where the drill has its copy; empty where no drill has that id.
  returned: O(state=read) and O(state=begun)
  type: dict
  sample:
    host: recovery1
    id: drill-20261129T180000Z
    of: db1
    path: /var/lib/postgresql/dbre-recovery/drill-main
    stanza: main
rc:
  description: Exit status of the playbook.
  returned: O(state=recovered)
  type: int
  sample: 0
verdict:
  description: V(proved), V(in_part) or V(not_recovered).
  returned: O(state=judged)
  type: str
  sample: proved
"""
