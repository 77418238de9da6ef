# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.damaged_tables import damaged_tables as tables_of
from ansible_collections.dbre.recovery.plugins.module_utils._wal.damaged_tables import later_in_tables

DOCUMENTATION = r"""
name: damaged_tables
short_description: Tables that one transaction changed, and what was done to them later
version_added: "0.1.0"
description:
  - Tells which tables that were there before a transaction it dropped, emptied, rewrote, or changed in their definition
    or rows, and what other transactions did to them from the target on.
options:
  _input:
    description:
      - What M(dbre.recovery.postgresql_change_history_info) returned, from the target on, with C(min_rows=1).
    type: dict
    required: true
  xid:
    description: Number of the transaction. Without one, the tables have to be named.
    type: int
  asked:
    description: Tables as in SQL, a list or a comma-separated string. All that the transaction changed, without any.
    type: raw
  oids:
    description: OIDs of tables whose later changes are told, where they are known otherwise than by the transaction.
    type: list
    elements: int
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See which tables transaction 741 damaged
  ansible.builtin.debug:
    msg: "{{ history | dbre.recovery.damaged_tables(741) }}"
"""

RETURN = r"""
_value:
  description:
    - C(relations) with C(schema), C(name), C(oid), C(kind), C(damage) and C(rows), all that the transaction changed,
      and C(asked) where they are to come back; their C(names) and C(oids). Of those in C(maybe) WAL tells only that
      something of the definition changed. C(stays) is what else the transaction did, and C(left_to_do)
      what of it is lost.
    - C(later) is what was committed to these tables from the target on, as P(dbre.recovery.later_transactions#filter)
      tells of a whole database; with O(oids), it is all that is told.
  type: dict
"""


def damaged_tables(
    history: Mapping[str, Any],
    xid: Optional[int] = None,
    asked: str | Sequence[str] | None = None,
    oids: Optional[Sequence[int]] = None,
) -> dict[str, Any]:
    number = None if xid in (None, "") else int(str(xid))
    if oids:
        # Of what was moved away, which has other names since.
        return {"later": later_in_tables(history, number, oids)}
    try:
        found = tables_of(history, number, asked)
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error
    # One that was made anew has only the name.
    return {**found, "later": later_in_tables(history, number, found["oids"], found["names"])}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"damaged_tables": damaged_tables}
