#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_failover
short_description: Take one step of a failover on one server
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Each state looks at the server first, so that a failover that was killed goes on, and one that is done changes
    nothing.
  - Nothing is promoted here that has not replayed O(lsn); to see that the old primary is off, and to choose, is the
    task of whoever calls this.
attributes:
  check_mode:
    description: Returns whether the step would change the server.
    support: full
  diff_mode:
    description: What a step changes of a running server has no readable difference.
    support: none
options:
  state:
    description:
      - V(fenced) masks the unit of the old primary and ends the server, at last by force. Run it as root.
      - V(cut) takes a standby's C(primary_conninfo) away by C(ALTER SYSTEM), so that its WAL receiver stops, and
        remembers it in O(path).
      - V(promoted) waits until everything up to O(lsn) is replayed, promotes, makes a checkpoint, and has O(slots) for
        the followers. It fails for a primary whose timeline did not begin at or behind O(lsn) of O(timeline).
      - V(following) points C(primary_conninfo) to O(primary_host) and waits until the standby streams O(timeline) and
        has replayed some of it. One that has replayed, or will replay, what the old primary wrote beyond O(lsn) is cut
        off instead, and RV(left) says so. A delayed standby is not waited for.
      - V(synchronous) sets O(synchronous_standby_names) and O(synchronized_standby_slots) of a new primary, when enough
        of those standbys stream; with fewer, every commit would wait, and nothing is set.
      - V(settled) takes back what C(ALTER SYSTEM) set, where a configuration file says the same by now.
    type: str
    choices: [fenced, cut, promoted, following, synchronous, settled]
    required: true
  incident:
    description:
      - Identifier of the incident. A standby that another one has cut off is refused.
    type: str
    required: true
  path:
    description:
      - Directory on the host in which is remembered what was changed.
    type: path
    required: true
  timeline:
    description:
      - Timeline of the old primary with O(state=promoted), that of the new one with O(state=following).
    type: int
  lsn:
    description:
      - Up to where WAL has to be replayed; with O(state=following) where O(timeline) began.
    type: str
  primary_host:
    description:
      - Address of the new primary, as the standby reaches it.
    type: str
  primary_port:
    description:
      - Port of the new primary.
    type: int
    default: 5432
  slots:
    description:
      - Names of physical replication slots that the followers use.
    type: list
    elements: str
    default: []
  synchronous_standby_names:
    description:
      - For which standbys commits are to wait, as PostgreSQL writes it. Empty leaves the server's as it is.
    type: str
    default: ""
  synchronized_standby_slots:
    description:
      - Slots that logical decoding is to wait for; those that are not there are left out. Empty leaves the server's.
    type: str
    default: ""
  timeout:
    description:
      - Seconds to wait.
    type: int
    default: 300
  abrupt:
    description:
      - With O(state=fenced), end the server at once, so that it sends and archives nothing more. For one that came back
        when another was to be promoted, or was. A standby stays as it is.
    type: bool
    default: false
  data_directory:
    description:
      - Data directory of the old primary, where Debian's C(pg_lsclusters) does not know it.
    type: path
  service:
    description:
      - Unit that runs the old primary, when it is not the one that the distribution has for it.
    type: str
extends_documentation_fragment:
  - dbre.recovery.postgresql
seealso:
  - module: dbre.recovery.postgresql_cluster_info
notes:
  - Except for O(state=fenced), run it as the operating system user that owns the data directory, and as a superuser of
    the database.
"""

EXAMPLES = r"""
- name: Let the standby receive nothing more
  dbre.recovery.postgresql_failover:
    state: cut
    incident: incident-7
    path: /var/lib/postgresql/dbre-recovery/failover-5432
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres

- name: Promote it
  dbre.recovery.postgresql_failover:
    state: promoted
    incident: incident-7
    path: /var/lib/postgresql/dbre-recovery/failover-5432
    timeline: 1
    lsn: 0/6000148
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
service:
  description: The unit that is masked.
  returned: when O(state) is V(fenced)
  type: str
  sample: postgresql@17-main
was_running:
  description: Whether a server ran there.
  returned: when O(state) is V(fenced)
  type: bool
timeline:
  description: Timeline of the new primary.
  returned: when O(state) is V(promoted), and not in check mode
  type: int
  sample: 2
fork_lsn:
  description: Where its timeline began.
  returned: when O(state) is V(promoted), and not in check mode
  type: str
  sample: 0/6000148
promotion_seconds:
  description: Seconds until it took writes.
  returned: when O(state) is V(promoted), and not in check mode
  type: float
  sample: 0.31
hba_file:
  description: The file that says who may connect to it.
  returned: when O(state) is V(promoted), and not in check mode
  type: str
  sample: /etc/postgresql/17/main/pg_hba.conf
applied:
  description: Whether enough standbys stream, and the settings are set.
  returned: when O(state) is V(synchronous)
  type: bool
  sample: true
streaming:
  description: Names of the standbys that stream.
  returned: when O(state) is V(synchronous)
  type: list
  elements: str
  sample: [dbre_db3]
left:
  description:
    - What the standby has of another timeline beyond O(lsn), where that is something, so that it cannot follow and must
      be rebuilt - that C(timeline), C(fork) where it left, and up to where it has C(replayed) it.
  returned: when O(state) is V(following)
  type: dict
  sample: {timeline: 1, fork: 0/6000148, replayed: 0/7000000}
file:
  description: The configuration file that sets C(primary_conninfo), where that is not PostgreSQL's own.
  returned: when O(state) is V(following)
  type: str
  sample: /etc/postgresql/17/main/conf.d/00_dbre_standby.conf
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._failover.fence import ensure_fenced
from ansible_collections.dbre.recovery.plugins.module_utils._failover.session import Request
from ansible_collections.dbre.recovery.plugins.module_utils._failover.steps import take_step
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["fenced", "cut", "promoted", "following", "synchronous", "settled"],
                "required": True,
            },
            "incident": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "timeline": {"type": "int"},
            "lsn": {"type": "str"},
            "primary_host": {"type": "str"},
            "primary_port": {"type": "int", "default": 5432},
            "slots": {"type": "list", "elements": "str", "default": []},
            "synchronous_standby_names": {"type": "str", "default": ""},
            "synchronized_standby_slots": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 300},
            "abrupt": {"type": "bool", "default": False},
            "data_directory": {"type": "path"},
            "service": {"type": "str"},
            **connection_argument_spec(),
        },
        required_if=[
            ("state", "promoted", ["lsn", "timeline"]),
            ("state", "following", ["lsn", "timeline", "primary_host"]),
        ],
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    try:
        if params["state"] == "fenced":
            result = ensure_fenced(
                params["login_port"],
                data=params["data_directory"],
                service=params["service"],
                timeout=params["timeout"],
                abrupt=params["abrupt"],
                check_mode=module.check_mode,
            )
        else:
            result = take_step(login_of(params), params["state"], pick(Request, params), module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Run this again with the same dr_incident_id when that is mended.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
