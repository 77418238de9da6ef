# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import Known, plan

DOCUMENTATION = r"""
name: failover_plan
short_description: Whom to promote, why, and what would be lost
version_added: "0.1.0"
description:
  - Decides from the states of all servers of a cluster, as M(dbre.recovery.postgresql_cluster_info) returned them.
options:
  _input:
    description:
      - Results of a task with M(dbre.recovery.postgresql_cluster_info) in a loop over names of hosts, the old primary
        among them. A host without a state counts as one that cannot be reached.
    type: list
    elements: dict
    required: true
  primary:
    description: The old primary, as the inventory names it.
    type: str
    required: true
  promote:
    description: The host to promote all the same.
    type: str
    default: ""
  max_lag:
    description: Seconds that it may be behind the best.
    type: float
    default: 60
  fenced:
    description: Whether somebody says that the old primary is off, or gave a command that sees to it.
    type: bool
    default: false
  accept_loss:
    description: Whether commits that clients were told of may be lost.
    type: bool
    default: false
  switchover:
    description: That the primary lives, and exchanges its place with a standby on purpose.
    type: bool
    default: false
  candidate:
    description: Whom the plan that was confirmed promotes.
    type: str
    default: ""
  "off":
    description: Whether the old primary was shut off by this incident.
    type: bool
    default: false
  upstreams:
    description: C(upstreams) of an earlier plan, from before the standbys were cut off.
    type: dict
    default: {}
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See whom to promote
  ansible.builtin.debug:
    msg: "{{ (looked.results | dbre.recovery.failover_plan('db1')).lines }}"
"""

RETURN = r"""
_value:
  description:
    - RV(ignore:refused), why nothing can be promoted, with the way out; empty when something can. Then
      RV(ignore:candidate), its RV(ignore:reason), RV(ignore:best_end) up to where WAL has to be replayed,
      RV(ignore:bring) the files of WAL that it lacks, RV(ignore:followers) the standbys that follow it, RV(ignore:loss)
      and RV(ignore:lines) for people.
    - RV(ignore:promoted) says that the candidate is the primary already, and nothing else then.
  type: dict
"""


def failover_plan(
    looked: Sequence[Mapping[str, Any]],
    primary: str,
    promote: Optional[str] = "",
    max_lag: Any = 60.0,
    fenced: bool = False,
    accept_loss: bool = False,
    candidate: Optional[str] = "",
    off: bool = False,
    upstreams: Optional[Mapping[str, Any]] = None,
    switchover: bool = False,
) -> dict[str, Any]:
    wishes = Wishes(promote or "", candidate or "", float(max_lag), fenced, accept_loss, switchover)
    try:
        return {"refused": "", **plan(looked, primary, wishes, Known(candidate or "", off, upstreams or {}))}
    except RecoveryError as error:
        return {"refused": error.msg, "promoted": False}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failover_plan": failover_plan}
