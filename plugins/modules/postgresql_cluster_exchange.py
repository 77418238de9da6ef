#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster_exchange
short_description: Put a restored cluster in the place of the one in use, or take that back
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Exchanges the whole data directory of a server, with its tablespaces and its directory of WAL, for one that
    M(dbre.recovery.pgbackrest_restore) made beside it and that was replayed to just before a position. The one in use
    before is kept whole until O(state=removed).
  - Directories change places by renames only. What comes into use is complete before, with production's present
    configuration and the settings with which it replays to the position and opens on a new timeline, so that whoever
    starts the server starts the right one. In a directory that is kept the control file has another name, so that
    nothing can be started there.
  - Each state looks where the directories are, so that a run that was killed goes on, and one that is done changes
    nothing.
  - Where a unit of systemd runs the server, RV(unit), whoever calls this stops it before O(state=closed) and
    O(state=taken_back), and starts it before O(state=opened). Any other server is stopped and started here, with the
    options that it was started with.
attributes:
  action_group:
    description:
      - Use C(group/dbre.recovery.pgbackrest) and C(group/dbre.recovery.postgresql) in C(module_defaults) to
        set defaults for this module.
    support: full
    membership:
      - dbre.recovery.pgbackrest
      - dbre.recovery.postgresql
  check_mode:
    description: Only O(state=planned) runs in check mode; the others are left out.
    support: partial
    details:
      - What the later states do depends on what the earlier ones have done.
  diff_mode:
    description: The exchange of directories has no readable difference.
    support: none
options:
  state:
    description:
      - V(planned) tells what would be exchanged, and refuses what cannot be. It needs the server to run.
      - V(prepared) proves the restored cluster while production serves. Replay stands at O(target), every database
        opens, and every page has its checksum. Then it gets production's configuration and links.
      - V(noted) writes down what the cluster is like while it serves, for the states after it, as V(prepared) does.
      - V(closed) has the server answer only at RV(login), for whoever wants to know what it has committed last.
      - V(exchanged) ends it and exchanges the directories.
      - V(overwritten) ends it, has all its WAL in the archive, copies what only it has to O(keep), and restores over
        the directory (C(--delta)), after it was proved that the archive leads to O(target). It needs O(in_place).
      - V(opened) waits until what is in its place takes writes, on a timeline that began where it was proved.
      - V(taken_back) stops the server and exchanges the directories again. The one that comes back gets a timeline of
        its own, so that a restore to the newest timeline follows it.
      - V(given_up) has the server answer as it did, as long as nothing was moved, and removes what was prepared. Where
        RV(start) is V(true) and RV(unit) is not empty, whoever calls this starts the unit.
      - V(removed) removes the one that does not serve.
    type: str
    choices: [planned, prepared, noted, closed, exchanged, overwritten, opened, taken_back, given_up, removed]
    required: true
  incident:
    description:
      - Identifier of the incident.
    type: str
    required: true
  keep:
    description:
      - Directory in which the replaced cluster is kept, C(keep) of RV(plan). Needed for all but V(planned).
    type: path
  path:
    description:
      - Directory of the side instance. Needed for V(planned), V(prepared) and V(overwritten).
    type: path
  in_place:
    description:
      - Restore over the cluster in use, of which nothing is kept but its WAL.
    type: bool
    default: false
  set:
    description:
      - Label of the backup set to restore with O(in_place). Without it, the newest that leads to the target.
    type: str
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, found by major version when not given.
    type: path
  timeout:
    description:
      - Seconds to wait for the server to stop, to start, and to replay.
    type: int
    default: 3600
extends_documentation_fragment:
  - dbre.recovery.contracts.target
  - dbre.recovery.postgresql
  - dbre.recovery.pgbackrest
seealso:
  - module: dbre.recovery.pgbackrest_restore
  - module: dbre.recovery.postgresql_timeline_archive
notes:
  - Run it as the operating system user that owns the data directory.
"""

EXAMPLES = r"""
- name: See whether the cluster could be exchanged
  dbre.recovery.postgresql_cluster_exchange:
    state: planned
    stanza: main
    incident: incident-7
    path: /var/lib/postgresql/dbre-recovery/incident-7
    target: "{{ located.target }}"
    login_unix_socket: /var/run/postgresql
  register: planned
  become: true
  become_user: postgres

- name: Take the exchange back
  dbre.recovery.postgresql_cluster_exchange:
    state: taken_back
    stanza: main
    incident: incident-7
    keep: /var/lib/postgresql/15/main.before-incident-7
    login_unix_socket: /var/run/postgresql
  become: true
  become_user: postgres
"""

RETURN = r"""
plan:
  description: What would be exchanged, C(lines) of it for people.
  returned: when O(state) is V(planned)
  type: dict
  sample: {"data": "/var/lib/postgresql/15/main", "unit": "postgresql@15-main.service", "standbys": 0,
    "checksums": true, "timeline": 1, "system_identifier": "7711488204033580105",
    "keep": "/var/lib/postgresql/15/main.before-incident-7", "in_use": [{"name": "shop", "open": true, "prepared": []}],
    "needed": 31457280, "free": 69566824448, "lines": []}
unit:
  description: The unit of systemd that runs the server; empty where there is none.
  returned: when O(state) is V(closed), V(exchanged), V(opened) or V(taken_back)
  type: str
  sample: postgresql@15-main.service
login:
  description: How to reach the closed server.
  returned: when O(state) is V(closed)
  type: dict
  sample: {"login_unix_socket": "/var/lib/postgresql/15/main.before-incident-7/run", "login_port": 5432}
open:
  description: Whether it runs there; it does not where an earlier run has ended it.
  returned: when O(state) is V(closed)
  type: bool
databases:
  description: Names of the databases of the restored cluster.
  returned: when O(state) is V(prepared) or V(opened)
  type: list
  elements: str
  sample: [postgres, shop, template0, template1]
in_use:
  description:
    - Databases of the cluster in use, whether they let anybody in, and what is prepared in them; empty where it does
      not serve.
  returned: when O(state) is V(prepared), V(noted), or V(closed) while it runs
  type: list
  elements: dict
  sample: [{"name": "shop", "open": true, "prepared": []}]
pages:
  description: What was seen of its pages.
  returned: when O(state) is V(prepared)
  type: str
  sample: every page has its checksum
reached:
  description: Where its replay stood when it was proved.
  returned: when O(state) is V(prepared), V(exchanged), V(opened) or V(taken_back)
  type: dict
  sample: {"lsn": "0/1710030", "time": "2026-11-23T21:52:48.112+00:00", "timeline": 1}
stopped:
  description: When the server was stopped.
  returned: when O(state) is V(exchanged), V(opened) or V(taken_back)
  type: str
  sample: "2026-11-23T21:58:01.020+00:00"
timeline:
  description: Timeline of the server.
  returned: when O(state) is V(closed) or V(opened)
  type: int
  sample: 2
left_to_do:
  description:
    - What is left to people, such as transactions that came back prepared, subscriptions with a gap, and commits that
      wait for standbys that cannot follow.
  returned: when O(state) is V(opened)
  type: list
  elements: dict
  sample: [{"what": "Decide the transaction that is prepared as order-17 in shop", "reason": "It was not decided.",
    "command": "psql -X 'host=/var/run/postgresql dbname=shop' -c \"ROLLBACK PREPARED 'order-17'\""}]
fork_lsn:
  description: Where it began; V(null) where the cluster goes on that nothing had replaced.
  returned: when O(state) is V(opened)
  type: str
  sample: 0/1710030
outage_seconds:
  description: From when it was stopped until it took writes.
  returned: when O(state) is V(opened)
  type: float
  sample: 8.3
serves:
  description: Whether the server answers as ever, and was not closed yet.
  returned: when O(state) is V(prepared) or V(noted)
  type: bool
start:
  description: Whether the server has to be started.
  returned: when O(state) is V(given_up)
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dbre.recovery.plugins.module_utils._core.arguments import check_arguments
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import TARGET_OPTIONS
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.exchange import STEPS, Asked, Exchange
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.in_place import InPlace
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.prepare import Preparation
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import ARGUMENT_SPEC as PGBACKREST_SPEC
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import refuse_root
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import (
    connection_argument_spec,
    login_of,
)


def take_step(exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
    state, target, in_place = params["state"], params["target"], params["in_place"]
    if in_place and state in ("planned", "overwritten"):
        restore = InPlace(exchange, target, chosen=params["set"], repo=params["repo"])
        return {"changed": False, "plan": restore.plan()} if state == "planned" else restore.overwrite()
    if state == "planned":
        return {"changed": False, "plan": exchange.plan(target)}
    if state == "prepared":
        return Preparation(exchange).prepare(target)
    result: dict[str, Any] = getattr(exchange, state)()
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["planned", "prepared", "overwritten", *STEPS], "required": True},
            "incident": {"type": "str", "required": True},
            "keep": {"type": "path"},
            "path": {"type": "path"},
            "target": {"type": "dict", "options": TARGET_OPTIONS},
            "in_place": {"type": "bool", "default": False},
            "set": {"type": "str"},
            "bin_dir": {"type": "path"},
            "timeout": {"type": "int", "default": 3600},
            **connection_argument_spec(),
            **PGBACKREST_SPEC,
        },
        required_if=[
            ("state", "planned", ["path", "target"]),
            ("state", "prepared", ["path", "target", "keep"]),
            ("state", "overwritten", ["path", "target", "keep"]),
            *(("state", state, ["keep"]) for state in STEPS),
        ],
        supports_check_mode=True,
    )
    check_arguments(module)
    params = module.params
    if module.check_mode and params["state"] != "planned":
        module.exit_json(skipped=True, msg="what this would do depends on what the step before has done")
    try:
        refuse_root("exchange a cluster")
        exchange = Exchange(pick(Asked, params), login_of(params))
        module.exit_json(**take_step(exchange, params))
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error}. Run this again with the same incident when that is mended: it goes on.")


if __name__ == "__main__":
    main()
