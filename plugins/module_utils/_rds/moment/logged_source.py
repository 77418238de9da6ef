# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database on RDS as far as its log is concerned: whose log, where it is exported to, what makes it say more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_identifier


@dataclass(frozen=True)
class Source:
    """The database as AWS describes it: its instances (the writer first), where it listens, what it exports."""

    identifier: str
    cluster: bool
    instances: tuple[str, ...]
    host: Optional[str]
    port: int
    exported: bool
    parameter_group: str
    engine: str

    @classmethod
    def read(cls, rds: Rds, instance: Optional[str], cluster: Optional[str]) -> Source:
        """Ask AWS. Raises RecoveryError when there is no such instance or cluster."""
        if cluster:
            identifier = check_identifier(cluster, "db_cluster_identifier")
            found = rds.cluster(identifier)
            if found is None:
                raise _missing("DB cluster", identifier, rds.region, "describe-db-clusters")
            members = sorted(found.get("DBClusterMembers") or [], key=lambda one: not one.get("IsClusterWriter"))
            return cls(
                identifier,
                True,
                tuple(one["DBInstanceIdentifier"] for one in members),
                found.get("Endpoint"),
                int(found.get("Port") or 5432),
                "postgresql" in (found.get("EnabledCloudwatchLogsExports") or []),
                str(found.get("DBClusterParameterGroup") or ""),
                str(found.get("Engine") or ""),
            )
        identifier = check_identifier(str(instance), "db_instance_identifier")
        found = rds.instance(identifier)
        if found is None:
            raise _missing("DB instance", identifier, rds.region, "describe-db-instances")
        groups = found.get("DBParameterGroups") or [{}]
        endpoint = found.get("Endpoint") or {}
        return cls(
            identifier,
            False,
            (identifier,),
            endpoint.get("Address"),
            int(endpoint.get("Port") or 5432),
            "postgresql" in (found.get("EnabledCloudwatchLogsExports") or []),
            str(groups[0].get("DBParameterGroupName") or ""),
            str(found.get("Engine") or ""),
        )

    def parameter(self, rds: Rds, name: str) -> Optional[str]:
        """A parameter as its group has it; None where the group leaves it to the engine."""
        kind = "db_cluster" if self.cluster else "db"
        group = {"DBClusterParameterGroupName" if self.cluster else "DBParameterGroupName": self.parameter_group}
        for parameter in rds.all(f"describe_{kind}_parameters", "Parameters", **group):
            if parameter.get("ParameterName") == name:
                return parameter.get("ParameterValue")
        return None

    def advice(self) -> str:
        """Commands after which the next incident can be found to the second."""
        if self.cluster:
            group, option = "modify-db-cluster-parameter-group", "--db-cluster-parameter-group-name"
            export = f"modify-db-cluster --db-cluster-identifier {self.identifier}"
        else:
            group, option = "modify-db-parameter-group", "--db-parameter-group-name"
            export = f"modify-db-instance --db-instance-identifier {self.identifier}"
        name = self.parameter_group or "GROUP"
        default = " (a default group cannot be changed: make one of your own first)" if "default." in name else ""
        return (
            f"aws rds {group} {option} {name} --parameters "
            "ParameterName=log_statement,ParameterValue=ddl,ApplyMethod=immediate "
            "ParameterName=track_commit_timestamp,ParameterValue=1,ApplyMethod=pending-reboot"
            f"{default} (log_statement=mod shows TRUNCATE, DELETE and UPDATE too); aws rds {export} "
            "--cloudwatch-logs-export-configuration EnableLogTypes=postgresql"
        )


def _missing(kind: str, identifier: str, region: str, command: str) -> RecoveryError:
    return RecoveryError(
        f"{kind} {identifier} does not exist in {region}. Nothing was changed. See: aws rds {command} --region "
        f"{region}. "
        "If it was deleted, its log files are gone with it; give the moment yourself (dr_target_time)."
    )
