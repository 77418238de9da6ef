#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_restore
short_description: Restore an RDS instance or cluster beside its source, with its settings
version_added: "0.1.0"
author:
  - the dbre.recovery authors (!UNKNOWN)
description:
  - Restores a DB instance, an Aurora cluster or a Multi-AZ cluster to a moment, to the latest one or from a snapshot,
    under another name. The source is never touched.
  - AWS gives a copy the default security group, parameter group and option group, one zone, no protection. This module
    gives it every setting of its source, except those given by option. What cannot be inherited is returned.
  - What the restore call takes goes into it. The rest is modified when the copy is available, then come the master
    user's password and IAM roles; an Aurora cluster gets its members. Everything is waited for.
  - Killed and run again, it goes on. A copy that was made of something else, of another moment or for another incident
    is an error and is left alone, as is anything of that name that is no copy.
  - A copy that was finished keeps its settings when the module is run again, whatever has become of the source; only
    what is given by option is kept as given. O(master_user_password) is set each time.
attributes:
  check_mode:
    description:
      - Can run in check_mode and return changed status prediction without modifying the target. Source, window, names
        and keys are checked, and the call that would be made is returned.
    support: full
  diff_mode:
    description: A restore has no difference to show.
    support: none
options:
  db_instance_identifier:
    description:
      - Name of the copy of an instance.
    type: str
  db_cluster_identifier:
    description:
      - Name of the copy of a cluster.
    type: str
  state:
    description:
      - V(present) restores.
      - V(absent) removes a copy, with the members of a cluster and its automated backups. It must have been made by
        this module for O(incident), still have its name, and not be protected from deletion, unless
        O(deletion_protection=false) says that its protection is to end.
    type: str
    choices: [present, absent]
    default: present
  incident:
    description:
      - What the copy is for; it is kept as a tag. Required to remove it.
    type: str
  source_db_instance_identifier:
    description:
      - The instance to restore. One that is gone is restored from retained automated backups; one in
        O(source_region) from backups that were replicated to this region.
    type: str
  source_dbi_resource_id:
    description:
      - The instance to restore, by its resource ID, which stays the same when it is renamed or gone.
    type: str
  source_db_instance_automated_backups_arn:
    description:
      - The automated backups to restore from, such as those replicated to this region.
    type: str
  db_snapshot_identifier:
    description:
      - The snapshot of an instance to restore, by name or ARN. One that is still being made is waited for.
    type: str
  source_db_cluster_identifier:
    description:
      - The cluster to restore.
    type: str
  source_db_cluster_resource_id:
    description:
      - The cluster to restore, by its resource ID.
    type: str
  db_cluster_snapshot_identifier:
    description:
      - The snapshot of a cluster to restore, by name or ARN.
    type: str
  source_region:
    description:
      - Region of the source where it is another one than that of the copy. Its settings are read there; security
        groups, subnet groups, parameter and option groups and keys exist in one region only and must be given.
    type: str
  source_settings:
    description:
      - Settings of the source as C(describe-db-instances) or C(describe-db-clusters) once returned them, for when the
        source is gone or its region cannot be reached. RV(dbre.recovery.rds_recovery_window_info#module:settings) has
        that shape, with the members of a cluster below C(Members).
    type: dict
  at:
    description:
      - The moment to restore to, in ISO 8601 with a UTC offset. RDS is exact to the second, so fractions are dropped.
    type: str
  latest:
    description:
      - Restore to the latest moment there is.
    type: bool
    default: false
  restore_type:
    description:
      - V(copy-on-write) makes a clone of the present of an Aurora cluster, in minutes.
      - V(backtrack) is refused with the reason, since it exists for Aurora MySQL only.
    type: str
    choices: [full-copy, copy-on-write, backtrack]
  inherit:
    description:
      - Whether the copy gets the settings of its source. Without it, AWS's defaults and what is given by option.
    type: bool
    default: true
  members:
    description:
      - Members of an Aurora cluster, each with the settings of the source's member of the same place (the writer comes
        first) except for those given here. Without it, as many as the source has; an empty list makes none.
    type: list
    elements: dict
    suboptions:
      db_instance_identifier:
        description:
          - Name of the member; by default the cluster's with a number.
        type: str
      auto_minor_version_upgrade: {type: bool, description: As for the whole copy.}
      availability_zone: {type: str, description: As for the whole copy.}
      ca_certificate_identifier: {type: str, description: As for the whole copy.}
      db_instance_class: {type: str, description: As for the whole copy.}
      db_parameter_group_name: {type: str, description: As for the whole copy.}
      enable_performance_insights: {type: bool, description: As for the whole copy.}
      monitoring_interval: {type: int, description: As for the whole copy.}
      monitoring_role_arn: {type: str, description: As for the whole copy.}
      performance_insights_kms_key_id: {type: str, description: As for the whole copy.}
      performance_insights_retention_period: {type: int, description: As for the whole copy.}
      preferred_maintenance_window: {type: str, description: As for the whole copy.}
      promotion_tier: {type: int, description: Order in which members take over as the writer.}
      publicly_accessible: {type: bool, description: As for the whole copy.}
      tags: {type: dict, description: As for the whole copy.}
  master_user_password:
    description:
      - Password that the master user of the copy gets. Without it, that which was valid at the restored moment.
    type: str
  final_snapshot_identifier:
    description:
      - Snapshot to make of a copy before it is removed. Without it, none is made.
    type: str
notes:
  - Options that are settings are inherited when they are not given. Given false, V(0) or empty, they are that.
  - An empty string, list or dictionary leaves the setting to AWS.
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - dbre.recovery.rds
  - dbre.recovery.rds_settings
seealso:
  - module: dbre.recovery.rds_recovery_window_info
  - module: dbre.recovery.rds_parameter_group
"""

EXAMPLES = r"""
- name: Restore the instance shop beside itself, to just before the incident
  dbre.recovery.rds_restore:
    source_db_instance_identifier: shop
    db_instance_identifier: shop-incident-7
    at: "2026-11-25T03:11:59+00:00"
    incident: incident-7

- name: The same as a small, isolated side instance
  dbre.recovery.rds_restore:
    source_db_instance_identifier: shop
    db_instance_identifier: shop-incident-7-side
    at: "2026-11-25T03:11:59+00:00"
    incident: incident-7
    db_parameter_group_name: shop-isolated
    vpc_security_group_ids: [sg-0a1b2c3d]
    multi_az: false
    deletion_protection: false
    backup_retention_period: 0
    associated_roles: []
    master_user_password: "{{ side_password }}"

- name: Restore an Aurora cluster with one member
  dbre.recovery.rds_restore:
    source_db_cluster_identifier: orders
    db_cluster_identifier: orders-incident-7
    latest: true
    members:
      - db_instance_class: db.r6g.large

- name: Restore in another region from replicated backups, when the source's is lost
  dbre.recovery.rds_restore:
    region: eu-west-1
    source_region: eu-central-1
    source_db_instance_identifier: shop
    db_instance_identifier: shop
    latest: true
    source_settings: "{{ stored_settings }}"
    db_subnet_group_name: shop
    vpc_security_group_ids: [sg-0d3c2b1a]
    db_parameter_group_name: shop-postgres17

- name: Remove the side instance
  dbre.recovery.rds_restore:
    db_instance_identifier: shop-incident-7-side
    incident: incident-7
    state: absent
"""

RETURN = r"""
action:
  description: What was done, or in check mode would be. V(continue) is a restore that was begun before.
  returned: success
  type: str
  choices: [none, restore, continue, remove]
  sample: restore
instance:
  description: The copy of an instance, as M(amazon.aws.rds_instance_info) returns it. Empty in check mode.
  returned: with O(db_instance_identifier)
  type: dict
  sample: {"db_instance_identifier": "shop-incident-7", "db_instance_status": "available"}
cluster:
  description: The copy of a cluster, as M(amazon.aws.rds_cluster_info) returns it. Empty in check mode.
  returned: with O(db_cluster_identifier)
  type: dict
  sample: {"db_cluster_identifier": "orders-incident-7", "status": "available"}
members:
  description: The members of the copy of a cluster.
  returned: with O(db_cluster_identifier)
  type: list
  elements: dict
  sample: [{"db_instance_identifier": "orders-incident-7-1"}]
endpoint:
  description: Host name to connect to (of a cluster, its writer). Null in check mode.
  returned: O(state=present)
  type: str
  sample: shop-incident-7.abcdefghijkl.eu-central-1.rds.amazonaws.com
port:
  description: Port to connect to. Null in check mode.
  returned: O(state=present)
  type: int
  sample: 5432
resource_id:
  description: Resource ID of the copy, which stays the same when it is renamed. Null in check mode.
  returned: O(state=present)
  type: str
  sample: db-ABCDEFGHIJKLMNOPQRSTUVWXYZ
arn:
  description: ARN of the copy. Null in check mode.
  returned: O(state=present)
  type: str
  sample: arn:aws:rds:eu-central-1:123456789012:db:shop-incident-7
restored_from:
  description: Name that the source had.
  returned: success, when there is a copy or would be
  type: str
  sample: shop
restored_from_id:
  description: Resource ID of the source, or ARN of the snapshot.
  returned: O(state=present)
  type: str
  sample: db-ZYXWVUTSRQPONMLKJIHGFEDCBA
restored_to:
  description:
    - The moment it was restored to. For O(latest) the latest moment that AWS told when it was asked, which the copy is
      not older than. For a snapshot the moment it was taken.
  returned: success, when there is a copy or would be
  type: str
  sample: "2026-11-25T03:11:59+00:00"
inherited:
  description: Settings that were taken from the source, by option.
  returned: O(state=present)
  type: dict
  sample: {"multi_az": true}
overridden:
  description: Settings that were given, by option.
  returned: O(state=present)
  type: dict
  sample: {"deletion_protection": false}
not_inherited:
  description: What the source has and the copy has not, each with the reason and what can be done.
  returned: O(state=present)
  type: list
  elements: dict
  sample: [{"name": "read_replicas", "reason": "replicas stay with the source: make new ones of the copy"}]
windows:
  description: What can be restored, of the backups that were used. Empty for snapshots.
  returned: O(state=present)
  type: list
  elements: dict
  sample: [{"kind": "automated", "earliest": "2026-11-18T04:00:00+00:00", "latest": "2026-11-25T03:20:00+00:00"}]
seconds:
  description: Seconds that each step of this run took.
  returned: O(state=present)
  type: dict
  sample: {"restore": 1.2, "available": 612.0, "settings": 95.3, "roles": 0.0, "parameters": 0.4}
request:
  description: The call that would be made, settings that would be modified after it, and members that would be made.
  returned: in check mode, O(state=present)
  type: dict
  sample: {"call": "restore_db_instance_to_point_in_time", "arguments": {"MultiAZ": true},
           "modified_after": ["monitoring_interval"], "members": []}
beside:
  description:
    - Isolated copies in this region that were restored for other incidents, the oldest first. Each has its C(incident),
      its identifier as C(path), since when it is there as C(created), and the command that removes it as C(remove).
  returned: in check mode, O(state=present)
  type: list
  elements: dict
  sample:
    - incident: incident-6
      path: shop-incident-6-side
      created: "2026-11-18T03:11:59+00:00"
      remove: >-
        ansible localhost -m dbre.recovery.rds_restore -a 'db_instance_identifier=shop-incident-6-side
        incident=incident-6 state=absent region=eu-central-1'
"""

from dataclasses import replace
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import (
    WAIT,
    RdsModule,
    facts,
    plain,
    run_module,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.beside import copies_beside
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.remove import ensure_absent
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.restore import Asked, Restore
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import argument_spec
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import CLUSTER_SOURCES, INSTANCE_SOURCES


def restore(module: RdsModule) -> dict[str, Any]:
    params = module.params
    if params["state"] == "absent":
        result = ensure_absent(
            *kind_of(params["db_instance_identifier"], params["db_cluster_identifier"]),
            params["incident"],
            module.rds(),
            module.waiting(),
            final_snapshot=params["final_snapshot_identifier"],
            unprotect=params["deletion_protection"] is False,
            check_mode=module.check_mode,
        )
    else:
        overrides = {option: params[option] for option in argument_spec() if option != "members"}
        asked = Restore(
            replace(pick(Asked, params), overrides=overrides),
            module.rds(),
            lambda region: module.rds(region, patient=False),
            module.waiting(),
            module.check_mode,
        )
        result = asked.run()
        if module.check_mode:
            rds = module.rds()
            reached = {"region": rds.region, "profile": params["profile"], "endpoint_url": params["endpoint_url"]}
            given = {option: str(text) for option, text in reached.items() if text}
            result["beside"] = copies_beside(asked.kind, rds, params["incident"] or "", given)
    for key in ("instance", "cluster"):
        if key in result:
            result[key] = facts(result[key]) if result[key] else {}
    if "members" in result:
        result["members"] = [facts(member) for member in result["members"]]
    return dict(plain(result))


def main() -> None:
    run_module(
        {
            "db_instance_identifier": {"type": "str"},
            "db_cluster_identifier": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "incident": {"type": "str"},
            **{option: {"type": "str"} for option in (*INSTANCE_SOURCES, *CLUSTER_SOURCES)},
            "source_region": {"type": "str"},
            "source_settings": {"type": "dict"},
            "at": {"type": "str"},
            "latest": {"type": "bool", "default": False},
            "restore_type": {"type": "str", "choices": ["full-copy", "copy-on-write", "backtrack"]},
            "inherit": {"type": "bool", "default": True},
            "master_user_password": {"type": "str", "no_log": True},
            "final_snapshot_identifier": {"type": "str"},
            **argument_spec(),
            **WAIT,
        },
        restore,
        required_one_of=[("db_instance_identifier", "db_cluster_identifier")],
        mutually_exclusive=[("db_instance_identifier", "db_cluster_identifier"), ("at", "latest")],
        required_if=[("state", "absent", ["incident"])],
    )


if __name__ == "__main__":
    main()
