# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import located

DOCUMENTATION = r"""
name: failover_located
short_description: Whom to promote and up to where, once all WAL is there
version_added: "0.1.0"
description:
  - Sums up for the steps that follow, and for the record, what was planned and what was salvaged.
options:
  _input:
    description: What the filter P(dbre.recovery.failover_plan#filter) returned, once no standby received any more.
    type: dict
    required: true
  salvaged:
    description: What M(dbre.recovery.postgresql_wal_salvage) returned.
    type: dict
    required: true
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Hand on whom to promote
  ansible.builtin.set_fact:
    located: "{{ planned | dbre.recovery.failover_located(salvaged) }}"
"""

RETURN = r"""
_value:
  description:
    - RV(ignore:candidate), RV(ignore:timeline) and RV(ignore:lsn), up to where it has to replay that timeline;
      RV(ignore:followers) and the RV(ignore:slots) that they need; RV(ignore:salvaged), what came from where;
      RV(ignore:lost), what was lost.
  type: dict
"""


def failover_located(planned: Mapping[str, Any], salvaged: Mapping[str, Any]) -> dict[str, Any]:
    return located(planned, salvaged)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_located": failover_located}
