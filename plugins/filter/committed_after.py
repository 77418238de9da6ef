# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._exchange.committed import committed_after as committed

DOCUMENTATION = r"""
name: committed_after
short_description: What was committed after a target in all databases of a cluster
version_added: "0.1.0"
description:
  - Puts the histories of several databases, read one after the other, together to one list of transactions and of rows
    by table.
options:
  _input:
    description:
      - What M(dbre.recovery.postgresql_change_history_info) returned for each database, with C(min_rows=1), as the
        results of a loop over their names.
    type: list
    elements: dict
    required: true
  before:
    description: What this filter returned for earlier WAL.
    type: dict
  xid:
    description: A transaction that is left out, since it is the damage itself.
    type: int
  kept_as:
    description: Where all of it is kept.
    type: str
  databases:
    description:
      - All databases of the server, each with its C(name), whether it is C(open), and what is C(prepared) in it.
    type: list
    elements: dict
    default: []
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what was committed after the target
  ansible.builtin.debug:
    msg: "{{ (histories.results | dbre.recovery.committed_after).lines }}"
"""

RETURN = r"""
_value:
  description:
    - The C(count) of transactions, rows by table in C(tables), C(lines) for people, and C(until), up to which the WAL
      of each database was read. C(transactions) are those that are told one by one, and C(listed_in) are the files with
      all of them.
  type: dict
"""


def committed_after(
    results: Sequence[Mapping[str, Any]],
    before: Optional[Mapping[str, Any]] = None,
    xid: Any = None,
    kept_as: str = "",
    databases: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    return committed(results, before, int(xid) if xid not in (None, "") else None, kept_as, databases)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"committed_after": committed_after}
