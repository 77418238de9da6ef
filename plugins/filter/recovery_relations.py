# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import to_recover

DOCUMENTATION = r"""
name: recovery_relations
short_description: Relations that a recovery brings back
version_added: "0.1.0"
description:
  - Returns what was asked for, and with O(scope=transaction) all else that the incident's transaction damaged.
options:
  _input:
    description: The RV(dbre.recovery.postgresql_recovery_target_info#module:incident), or nothing where none was found.
    type: dict
    required: true
  asked:
    description: What was asked for, as in SQL, a list or a comma-separated string.
    type: raw
    required: true
  database:
    description: Name of the database. Of an incident in another one nothing is added.
    type: str
    required: true
  scope:
    description: Whether all that the transaction damaged comes back (V(transaction)), or what was asked for (V(named)).
    type: str
    choices: [transaction, named]
    default: transaction
  load:
    description:
      - What is done with tables that exist. V(replace) exchanges all rows, so of what was not asked for it takes only
        what was dropped or emptied, and not what lost or changed some rows.
    type: str
    choices: [beside, merge, replace]
    default: beside
  schemas:
    description: Schemas that were asked for. What is in them comes back anyhow.
    type: raw
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Recover all that went with the orders
  ansible.builtin.debug:
    msg: "{{ lost.incident | dbre.recovery.recovery_relations('public.orders', 'shop') }}"
"""

RETURN = r"""
_value:
  description: Names as in SQL.
  type: list
  elements: str
"""


def recovery_relations(
    incident: Optional[Mapping[str, Any]],
    asked: str | Sequence[str] | None,
    database: str,
    scope: str = "transaction",
    load: str = "beside",
    schemas: str | Sequence[str] | None = None,
) -> list[str]:
    try:
        return to_recover(incident or {}, asked, schemas, database, scope, load)
    except RecoveryError as error:
        raise AnsibleFilterError(f"{error.msg}. Nothing was touched.") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recovery_relations": recovery_relations}
