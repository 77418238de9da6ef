# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.page_plan import page_plan as plan_of

DOCUMENTATION = r"""
name: page_plan
short_description: Which tables can get back the rows of their damaged pages
version_added: "0.1.0"
description:
  - Tells of what was located in a database which tables have pages that the server refuses to read, and what else is
    damaged. Fails where no table can be helped by the rows of its pages, and names the way back that there is.
options:
  _input:
    description: What M(dbre.recovery.postgresql_corruption_info) returned.
    type: dict
    required: true
  database:
    description: Name of the database.
    type: str
    required: true
  asked:
    description: The tables, as in SQL, a list or a comma-separated string. All that have such pages, without any.
    type: raw
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See which tables can be helped so
  ansible.builtin.debug:
    msg: "{{ located | dbre.recovery.page_plan('shop') }}"
"""

RETURN = r"""
_value:
  description:
    - C(relations) with C(oid), C(schema), C(name), C(blocks), C(path) and C(lsn), and their C(names) as in SQL; the
      C(incident) as a plan of recovery has it.
    - C(backup) is the one to restore, with C(label) and C(repo), and C(null) where any will do; C(lines) say it to
      people, with what else is damaged.
  type: dict
"""


def page_plan(located: Mapping[str, Any], database: str, asked: str | Sequence[str] | None = None) -> dict[str, Any]:
    try:
        return plan_of(located, database, asked)
    except RecoveryError as error:
        raise AnsibleFilterError(error.msg) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"page_plan": page_plan}
