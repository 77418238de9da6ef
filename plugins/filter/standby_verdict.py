# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.following import Verdict, verdict

DOCUMENTATION = r"""
name: standby_verdict
short_description: Whether a standby follows its primary, and if not, why
version_added: "0.1.0"
description:
  - Judges what a standby said of itself, or that it let nobody in.
options:
  _input:
    description:
      - What M(community.postgresql.postgresql_query) returned, with the column C(state) of the query of role
        P(dbre.recovery.postgresql_standby#role).
    type: dict
    required: true
  where:
    description: Host and port of the standby, for people.
    type: str
    required: true
  primary:
    description: Name of the primary.
    type: str
    required: true
  primary_end:
    description: LSN up to which the primary's WAL must have come.
    type: str
    required: true
  delay:
    description: How long the standby holds back what it replays. V(0) is not at all.
    type: str
    required: true
  timeout:
    description: Seconds that were waited.
    type: int
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Stop where the standby does not follow
  ansible.builtin.assert:
    that: verdict.follows
    fail_msg: "{{ verdict.why_not }}"
  vars:
    verdict: "{{ asked | dbre.recovery.standby_verdict('db2, port 5432', 'db1', '0/3008940', '0', 300) }}"
"""

RETURN = r"""
_value:
  description: RV(ignore:follows), and RV(ignore:why_not) for people.
  type: dict
"""


def standby_verdict(
    answer: Mapping[str, Any], where: str, primary: str, primary_end: str, delay: Any, timeout: Any
) -> Verdict:
    return verdict(answer, where, primary, primary_end, str(delay), int(timeout))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"standby_verdict": standby_verdict}
