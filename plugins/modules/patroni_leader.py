#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_leader
short_description: Have Patroni make a member its leader, and prove that it is
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Asks C(patronictl) for it, and touches nothing of PostgreSQL or of Patroni's configuration itself. Looks first who
    leads, so that a switchover that has happened is not made again.
  - What C(patronictl) ends with says little; that the member leads, that its server takes writes, and where its
    timeline began is looked up afterwards.
attributes:
  check_mode:
    description: Returns whether Patroni would be asked for another leader.
    support: full
  diff_mode:
    description: A change of the leader has no readable difference.
    support: none
options:
  member:
    description:
      - Name of this host's member, which is to lead.
    type: str
    required: true
  scope:
    description:
      - Name of Patroni's cluster.
    type: str
    required: true
  config:
    description:
      - Patroni's configuration file, or one of C(patronictl).
    type: path
    required: true
  executable:
    description:
      - The program C(patronictl).
    type: str
    default: patronictl
  leader:
    description:
      - Whose place it takes. It fails where a third one leads. Empty where nobody knows the name of one that is dead.
    type: str
    default: ""
  switchover:
    description:
      - That O(leader) lives and is exchanged on purpose, by C(patronictl switchover). Otherwise it is dead, and
        C(patronictl failover) is asked, which Patroni carries out when the lock of the dead one has expired.
    type: bool
    default: false
  timeline:
    description:
      - Timeline of the old leader.
    type: int
    required: true
  lsn:
    description:
      - The new timeline must not have left O(timeline) before this position.
    type: str
    required: true
  followers:
    description:
      - Members to wait for until they run on the new timeline.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds to wait, for the leader and then for O(followers).
    type: int
    default: 300
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_cluster_info
notes:
  - Run it on the host of O(member), as the operating system user that runs Patroni, and as a superuser of the database.
"""

EXAMPLES = r"""
- name: Exchange the leader
  dbre.recovery.patroni_leader:
    scope: shop
    config: /etc/patroni/config.yml
    leader: db1
    member: db2
    switchover: true
    timeline: 1
    lsn: 0/6000148
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
leader:
  description: The member that leads.
  returned: when it leads
  type: str
  sample: db2
timeline:
  description: Its timeline.
  returned: when it leads
  type: int
  sample: 2
fork_lsn:
  description: Where that left O(timeline).
  returned: when it leads
  type: str
  sample: 0/6000148
said:
  description: What C(patronictl) said; empty when it was not asked.
  returned: when it leads
  type: str
  sample: '2026-11-29 21:46:14.20836 Successfully switched over to "db2"'
began:
  description: When it was asked.
  returned: when it was
  type: str
  sample: "2026-11-29T21:46:12.109113+00:00"
seconds:
  description: Seconds from then until the new leader took writes.
  returned: when it was
  type: float
  sample: 2.43
missing:
  description: Those of O(followers) that do not run on the new timeline, each a C(member) and C(why) not.
  returned: when it leads
  type: list
  elements: dict
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_leader import Leading, Wanted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "member": {"type": "str", "required": True},
            "scope": {"type": "str", "required": True},
            "config": {"type": "path", "required": True},
            "executable": {"type": "str", "default": "patronictl"},
            "leader": {"type": "str", "default": ""},
            "switchover": {"type": "bool", "default": False},
            "timeline": {"type": "int", "required": True},
            "lsn": {"type": "str", "required": True},
            "followers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 300},
            **connection_argument_spec(),
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    try:
        result = Leading(login_of(module.params), pick(Wanted, module.params), module.check_mode).ensure()
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Run this again with the same dr_incident_id when that is mended.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
