# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import later_transactions as later_of

DOCUMENTATION = r"""
name: later_transactions
short_description: What was committed after a recovery target
version_added: "0.1.0"
description:
  - Lists the transactions that changed something in a database from a target on, which a database as it was at the
    target lacks, with the rows of each table.
options:
  _input:
    description:
      - What M(dbre.recovery.postgresql_change_history_info) returned, from the target on, with C(min_rows=1).
    type: dict
    required: true
  xids:
    description: Numbers of the transactions that did the damage, which are left out.
    type: list
    elements: int
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what came after transaction 741
  ansible.builtin.debug:
    msg: "{{ history | dbre.recovery.later_transactions([741]) }}"
"""

RETURN = r"""
_value:
  description:
    - The C(count) of transactions and of C(rows) they changed, C(tables) with the rows that were C(inserted),
      C(updated) and C(deleted), and C(lines) for people. C(transactions) are those that are told one by one, with their
      changes, and C(listed_in) are the files with all of them.
  type: dict
"""


def later_transactions(history: Mapping[str, Any], xids: Optional[Sequence[int]] = None) -> dict[str, Any]:
    return dict(later_of(history, None if xids is None else list(map(int, xids))))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"later_transactions": later_transactions}
