# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.bisect import MINUTES_EACH, PRECISION, step

DOCUMENTATION = r"""
name: rds_bisect
short_description: Where a search by restores stands
version_added: "0.1.0"
description:
  - For an incident whose moment no log tells. Restore to RV(ignore:next), look whether what was lost is there, add what
    was seen to the input, and ask again until RV(ignore:done).
  - The same input gives the same answer, so a search that was interrupted goes on from what it has kept.
  - It fails when what was seen contradicts itself (gone, and there again later).
options:
  _input:
    description: What was tried so far. An empty list gives the first moment and what the whole search costs.
    type: list
    elements: dict
    required: true
    suboptions:
      time:
        description: Moment that was restored to, ISO 8601 with its UTC offset.
        type: str
        required: true
      present:
        description: Whether what was lost was there.
        type: bool
        required: true
      rows:
        description: Rows that were counted, where they were.
        type: int
  after:
    description: A moment at which it was there, ISO 8601 with its UTC offset.
    type: str
    required: true
  before:
    description: A later moment at which it was gone.
    type: str
    required: true
  precision:
    description: Seconds that are near enough. RDS restores to whole seconds, so less than one is one.
    type: float
    default: 60
  minutes_each:
    description: Minutes that a restore, a look and a deletion take, for the cost.
    type: float
    default: 30
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what the search costs
  ansible.builtin.debug:
    msg: "{{ ([] | dbre.recovery.rds_bisect('2026-11-25T02:00:00+00:00', '2026-11-25T12:00:00+00:00')).text }}"

- name: Narrow by what the last restore showed
  ansible.builtin.set_fact:
    bisect: "{{ tried | dbre.recovery.rds_bisect(since, until, precision=10) }}"
  vars:
    tried:
      - { time: "2026-11-25T07:00:00+00:00", present: true, rows: 120340 }
"""

RETURN = r"""
_value:
  description:
    - C(done), and C(next), the moment to restore to (V(null) when done).
    - C(after) and C(before), between which the incident is, C(seconds) between them.
    - C(restores) and C(instance_hours) that are left at most, and C(text), which says it in words.
    - When done, C(target), a recovery target, with C(precision_seconds), C(lost_at_most), C(method) (V(bisect)).
    - C(seen), whether a restore showed that it was there at C(after), and C(rows) counted then.
  type: dict
"""


def rds_bisect(
    tried: Any, after: str, before: str, precision: float = PRECISION, minutes_each: float = MINUTES_EACH
) -> dict[str, Any]:
    if not isinstance(tried, Sequence) or isinstance(tried, str) or not all(isinstance(one, Mapping) for one in tried):
        raise AnsibleFilterError("rds_bisect needs a list of what was tried: [{time, present, rows}]")
    for one in tried:
        if "time" not in one or not isinstance(one.get("present"), bool):
            raise AnsibleFilterError(f"rds_bisect needs time and present (true or false) of each try, not {dict(one)}")
    try:
        return step(str(after), str(before), tried, float(precision), float(minutes_each))
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rds_bisect": rds_bisect}
