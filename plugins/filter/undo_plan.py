# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.undo_plan import undo_plan as plan_of

DOCUMENTATION = r"""
name: undo_plan
short_description: What it takes to undo the rows of one transaction
version_added: "0.1.0"
description:
  - Tells which tables a transaction changed rows of, and how many later transactions changed the same tables. Fails
    where it did more than to change rows.
options:
  _input:
    description:
      - What M(dbre.recovery.postgresql_change_history_info) returned, from the transaction's position on, with
        C(min_rows=1).
    type: dict
    required: true
  named:
    description: The transactions with their C(xid), C(lsn) and C(subxacts), in the order of their commits.
    type: list
    elements: dict
    required: true
  asked:
    description: The tables that are to be undone, as in SQL, a list or a comma-separated string. All, without any.
    type: raw
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what undoing transaction 741 takes
  ansible.builtin.debug:
    msg: "{{ history | dbre.recovery.undo_plan([found.incident] + found.incident.also) }}"
"""

RETURN = r"""
_value:
  description:
    - C(relations) with C(schema), C(name), C(oid), C(kind), C(damage) and C(rows), their C(names) and C(oids), the
      number of C(rows), and lines about C(later) transactions. C(transactions) are those that a side instance is to
      keep the images of. C(left_to_do) is what else they changed that no undo of rows reaches.
  type: dict
"""


def undo_plan(
    history: Mapping[str, Any], named: Sequence[Mapping[str, Any]], asked: str | Sequence[str] | None = None
) -> dict[str, Any]:
    try:
        return dict(plan_of(history, named, asked))
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"undo_plan": undo_plan}
