"""DB parameter groups: what they hold reaches the real servers; static parameters at the next reboot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from moto.rds.exceptions import DBClusterParameterGroupNotFoundError, DBParameterGroupNotFoundError

from . import rules
from .core import Core
from .postgres import FIXED

# RDS's own parameters, kept but not PostgreSQL's: name -> default.
RDS_PARAMETERS = {
    "rds.allowed_extensions": "*",
    "rds.force_admin_logging_level": "disabled",
    "rds.force_ssl": "1",
    "rds.log_retention_period": "4320",
    "rds.logical_replication": "0",
    "rds.restrict_password_commands": "0",
}
STATIC_RDS_PARAMETERS = {"rds.logical_replication", "rds.restrict_password_commands"}


def server_settings(*groups: Any) -> dict[str, str]:
    """What of the groups goes into postgresql.conf; of a cluster's and an instance's group, the instance's wins."""
    values = {
        name: entry["ParameterValue"]
        for group in groups
        for name, entry in group.parameters.items()
        if "ParameterValue" in entry
    }
    settings = {name: value for name, value in values.items() if not name.startswith("rds.") and name not in FIXED}
    if values.get("rds.logical_replication") == "1":
        settings["wal_level"] = "logical"
    return settings


class Parameters(Core):
    """The actions on parameter groups."""

    def _group(self, name: str) -> Any:
        found = self.db_parameter_groups.get(name)
        if found is None:
            raise DBParameterGroupNotFoundError(name)
        return found

    def _is_static(self, name: str) -> bool:
        known = self.emulator.programs.settings.get(name)
        return name in STATIC_RDS_PARAMETERS or bool(known and known[0] == "postmaster")

    def modify_db_parameter_group(
        self, db_parameter_group_name: str, db_parameter_group_parameters: Iterable[Mapping[str, Any]]
    ) -> Any:
        return self._modify_group(self._group(db_parameter_group_name), db_parameter_group_parameters)

    def modify_db_cluster_parameter_group(
        self, db_cluster_parameter_group_name: str, db_cluster_parameter_group_parameters: Iterable[Mapping[str, Any]]
    ) -> Any:
        group = self.db_cluster_parameter_groups.get(db_cluster_parameter_group_name)
        if group is None:
            raise DBClusterParameterGroupNotFoundError(db_cluster_parameter_group_name)
        return self._modify_group(group, db_cluster_parameter_group_parameters)

    def _modify_group(self, group: Any, parameters: Iterable[Mapping[str, Any]]) -> Any:
        if group.name.startswith("default."):
            raise rules.Refused("InvalidDBParameterGroupState", "Default parameter groups cannot be modified.")
        changes = [dict(parameter) for parameter in parameters]
        for parameter in changes:
            name = parameter["ParameterName"]
            if name not in self.emulator.programs.settings and name not in RDS_PARAMETERS:
                raise rules.parameter_value(f"Could not find parameter with name: {name}")
            if name in FIXED:
                raise rules.parameter_value(f"The parameter {name} cannot be modified.")
            if self._is_static(name) and parameter.get("ApplyMethod") != "pending-reboot":
                raise rules.parameter_combination(f"cannot use immediate apply method for static parameter: {name}")
        for parameter in changes:
            group.parameters[parameter["ParameterName"]] = parameter
        self._apply(group, [parameter["ParameterName"] for parameter in changes])
        return group

    def _apply(self, group: Any, names: Iterable[str]) -> None:
        """Dynamic parameters reach the servers by a reload, static ones at the next reboot."""
        static = any(self._is_static(name) for name in names)
        for instance in self.instances:
            if group not in instance.parameter_groups:
                continue
            if static:
                instance.parameter_status = "pending-reboot"
            instance.server.parameters = server_settings(*instance.parameter_groups)
            if instance.server.running:
                instance.server.configure()
                instance.server.reload()

    def reset_db_parameter_group(
        self,
        db_parameter_group_name: str,
        reset_all_parameters: bool = False,
        parameters: Optional[list[Mapping[str, Any]]] = None,
        **_: Any,
    ) -> Any:
        group = self._group(db_parameter_group_name)
        named = [parameter["parameter_name"] for parameter in parameters or []]
        names = list(group.parameters) if reset_all_parameters else named
        for name in names:
            group.parameters.pop(name, None)
        self._apply(group, names)
        return group

    def describe_db_parameters(
        self, db_parameter_group_name: str, source: Optional[str] = None
    ) -> list[dict[str, Any]]:
        return self._describe_group(self._group(db_parameter_group_name), source)

    def describe_db_cluster_parameters(
        self, db_cluster_parameter_group_name: str, source: Optional[str] = None
    ) -> list[dict[str, Any]]:
        group = self.db_cluster_parameter_groups.get(db_cluster_parameter_group_name)
        if group is None:
            raise DBParameterGroupNotFoundError(db_cluster_parameter_group_name)
        return self._describe_group(group, source)

    def _describe_group(self, group: Any, source: Optional[str]) -> list[dict[str, Any]]:
        """Every parameter there is; those somebody set have the source ``user``."""
        described = []
        for name, (context, kind, description) in sorted(self.emulator.programs.settings.items()):
            entry: dict[str, Any] = {"ParameterName": name, "Description": description, "Source": "engine-default"}
            entry["ApplyType"] = "static" if context == "postmaster" else "dynamic"
            entry["DataType"] = kind.lower()
            modifiable = name not in FIXED and context != "internal"
            described.append({**entry, "IsModifiable": modifiable, "ApplyMethod": "pending-reboot"})
        for name, default in RDS_PARAMETERS.items():
            kind = "static" if self._is_static(name) else "dynamic"
            described.append(
                {"ParameterName": name, "ParameterValue": default, "Source": "system", "ApplyType": kind,
                 "DataType": "string", "IsModifiable": True, "ApplyMethod": "pending-reboot"}
            )  # fmt: skip
        for entry in described:
            if set_by_user := group.parameters.get(entry["ParameterName"]):
                entry.update(set_by_user, Source="user")
        return [entry for entry in described if source in (None, entry["Source"])]
