# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shop on the emulated RDS, and the real playbooks run against it as an operator would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import iam
import psycopg2
from emulated_rds.__main__ import newest_bin_dir
from leaks import Planted, Watch, files_with
from runs import Run, everything, run, run_killed_in, with_everything

ABANDON = "dbre.recovery.dr_abandon"
HERE = Path(__file__).parent
HOME, AWAY = "eu-central-1", "eu-west-1"
PLANTED = Planted()
MASTER, PASSWORD = "shopmaster", PLANTED.plant("password of the master user", "$%.'")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAEMULATED",
    "AWS_SECRET_ACCESS_KEY": PLANTED.plant("secret key of AWS"),
    "AWS_SESSION_TOKEN": PLANTED.plant("session token of AWS", "/+="),
    "AWS_EC2_METADATA_DISABLED": "true",
}


# Actions that these tests do not come to, and why.
BACKUPS = "what rds-backup does after a takeover; test_backups.py comes to it"
NOT_COME_TO = {
    "rds:RebootDBInstance": "only where parameters wait for it",
    "rds:DescribeDBLogFiles": "the moment is given",
    "rds:DownloadDBLogFilePortion": "the moment is given",
    "rds:DescribeDBParameters": "only where the database does not tell how its log begins lines",
    "rds:ModifyDBInstance": "only where the restore call does not take a setting",
    "rds:CrossRegionCommunication": BACKUPS,
    "rds:CopyDBSnapshot": BACKUPS,
    "rds:CreateDBSnapshot": BACKUPS,
    "rds:DeleteDBSnapshot": BACKUPS,
    "rds:ListTagsForResource": BACKUPS,
    "rds:StartDBInstanceAutomatedBackupsReplication": BACKUPS,
    "rds:StopDBInstanceAutomatedBackupsReplication": BACKUPS,
    "rds:AddRoleToDBInstance": "the emulated instances have no IAM roles",
    "rds:CreateDBParameterGroup": "only for a source with AWS's default group",
    "rds:DescribeDBProxyTargets": "there are no proxies",
    "logs:FilterLogEvents": "the emulated instances export no logs",
    "rds:RestoreDBInstanceFromDBSnapshot": "a lost region is restored from replicated backups here",
}


class Cloud:
    """The emulated RDS with a folder for what the operator keeps."""

    def __init__(self, emulated: Any, folder: Path) -> None:
        self.emulated = emulated
        self.folder = folder
        self.reports = folder / "incidents"
        # What each playbook asked AWS for, over all its runs.
        self.asked: dict[str, list[dict[str, Any]]] = {}
        # Passwords of master users, where they are others than all have.
        self.passwords: dict[str, str] = {}

    def api(self, region: str = HOME) -> Any:
        return self.emulated.client("rds", region)

    # -- databases -------------------------------------------------------------------------------------------------
    def instance(self, identifier: str, region: str = HOME) -> dict[str, Any]:
        return self.api(region).describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]

    def identifiers(self, region: str = HOME) -> set[str]:
        found = self.api(region).describe_db_instances()["DBInstances"]
        return {instance["DBInstanceIdentifier"] for instance in found}

    def wait(self, identifier: str, region: str = HOME) -> dict[str, Any]:
        for _attempt in range(300):
            with contextlib.suppress(self.api(region).exceptions.DBInstanceNotFoundFault):
                found = self.instance(identifier, region)
                if found["DBInstanceStatus"] == "available":
                    return found
            time.sleep(0.2)
        raise AssertionError(f"{identifier} in {region} does not become available")

    def make_shop(self, identifier: str, **settings: Any) -> dict[str, Any]:
        """An instance with a shop in it, whose server writes down every DDL."""
        rds = self.api()
        group = f"{identifier}-params"
        family = f"postgres{newest_bin_dir().parent.name}"
        rds.create_db_parameter_group(DBParameterGroupName=group, DBParameterGroupFamily=family, Description="shop")
        rds.modify_db_parameter_group(
            DBParameterGroupName=group,
            Parameters=[{"ParameterName": "log_statement", "ParameterValue": "ddl", "ApplyMethod": "immediate"}],
        )
        given: dict[str, Any] = {
            "DBInstanceIdentifier": identifier,
            "DBInstanceClass": "db.r6g.large",
            "Engine": "postgres",
            "MasterUsername": MASTER,
            "MasterUserPassword": PASSWORD,
            "AllocatedStorage": 20,
            "DBName": "shop",
            "BackupRetentionPeriod": 7,
            "DBParameterGroupName": group,
            "DeletionProtection": True,
            "CopyTagsToSnapshot": True,
            "Tags": [{"Key": "team", "Value": "shop"}],
        }
        rds.create_db_instance(**{**given, **settings})
        made = self.wait(identifier)
        self.sql(identifier, (HERE / "shop.sql").read_text())
        time.sleep(2.1)  # what comes now is a whole second after the beginning of what can be restored
        return made

    def make_cluster(self, identifier: str, members: int = 2) -> dict[str, Any]:
        """An Aurora cluster with a shop in it."""
        rds = self.api()
        family = f"aurora-postgresql{newest_bin_dir().parent.name}"
        group = f"{identifier}-params"
        rds.create_db_cluster_parameter_group(
            DBClusterParameterGroupName=group, DBParameterGroupFamily=family, Description="shop"
        )
        rds.modify_db_cluster_parameter_group(
            DBClusterParameterGroupName=group,
            Parameters=[{"ParameterName": "log_statement", "ParameterValue": "ddl", "ApplyMethod": "immediate"}],
        )
        rds.create_db_cluster(
            DBClusterIdentifier=identifier,
            Engine="aurora-postgresql",
            MasterUsername=MASTER,
            MasterUserPassword=PASSWORD,
            DatabaseName="shop",
            BackupRetentionPeriod=7,
            DBClusterParameterGroupName=group,
        )
        for _attempt in range(300):
            if self.cluster(identifier)["Status"] == "available":
                break
            time.sleep(0.2)
        for number in range(1, members + 1):
            rds.create_db_instance(
                DBInstanceIdentifier=f"{identifier}-{number}",
                DBClusterIdentifier=identifier,
                DBInstanceClass="db.r6g.large",
                Engine="aurora-postgresql",
            )
            self.wait(f"{identifier}-{number}")
        self.sql(identifier, (HERE / "shop.sql").read_text())
        time.sleep(2.1)
        return self.cluster(identifier)

    def cluster(self, identifier: str, region: str = HOME) -> dict[str, Any]:
        return self.api(region).describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"][0]

    def writer(self, identifier: str) -> str:
        members = self.cluster(identifier)["DBClusterMembers"]
        return next(member["DBInstanceIdentifier"] for member in members if member["IsClusterWriter"])

    def endpoint(self, identifier: str, region: str = HOME) -> tuple[str, int]:
        """Where an instance, or the writer of a cluster, is reached."""
        with contextlib.suppress(self.api(region).exceptions.DBInstanceNotFoundFault):
            found = self.instance(identifier, region)["Endpoint"]
            return found["Address"], found["Port"]
        cluster = self.cluster(identifier, region)
        return cluster["Endpoint"], cluster["Port"]

    def connect(self, identifier: str, region: str = HOME, database: str = "shop") -> Any:
        host, port = self.endpoint(identifier, region)
        connection = psycopg2.connect(
            host=host,
            port=port,
            user=MASTER,
            password=self.passwords.get(identifier, PASSWORD),
            dbname=database,
            sslmode="verify-ca",
            sslrootcert=str(self.emulated.ca),
            connect_timeout=10,
        )
        connection.autocommit = True
        return connection

    def sql(self, identifier: str, statements: str, region: str = HOME) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.connect(identifier, region)) as connection, connection.cursor() as cursor:
            cursor.execute(statements)
            return cursor.fetchall() if cursor.description else []

    def checksum(self, identifier: str, table: str, region: str = HOME) -> tuple[Any, ...]:
        query = f'SELECT count(*), sum(hashtextextended(t::text COLLATE "C", 0)) FROM {table} t'
        return self.sql(identifier, query, region)[0]

    def now(self, identifier: str) -> datetime:
        return self.sql(identifier, "SELECT clock_timestamp()")[0][0].astimezone(timezone.utc)

    def world(self) -> dict[str, Any]:
        """Everything that a run may not change when it must change nothing."""
        seen: dict[str, Any] = {}
        for region in (HOME, AWAY):
            rds = self.api(region)
            instances = rds.describe_db_instances()["DBInstances"]
            for instance in instances:
                instance.pop("LatestRestorableTime", None)
            seen[region] = {
                "instances": instances,
                "snapshots": rds.describe_db_snapshots()["DBSnapshots"],
                "groups": rds.describe_db_parameter_groups()["DBParameterGroups"],
            }
        return json.loads(json.dumps(seen, default=str))

    # -- passwords -------------------------------------------------------------------------------------------------
    def change_password(self, identifier: str, password: str) -> None:
        """Another password for the master user, as RDS changes it."""
        self.api().modify_db_instance(
            DBInstanceIdentifier=identifier, MasterUserPassword=password, ApplyImmediately=True
        )
        self.passwords[identifier] = password
        for _attempt in range(300):
            with contextlib.suppress(psycopg2.OperationalError):
                self.connect(identifier).close()
                self.wait(identifier)
                return
            time.sleep(0.1)
        raise AssertionError(f"{identifier} does not get its password")

    def in_secret(self, name: str) -> dict[str, Any]:
        """The words of an inventory whose password RDS keeps in a secret."""
        text = json.dumps({"username": MASTER, "password": PASSWORD})
        made = self.emulated.client("secretsmanager", HOME).create_secret(Name=f"rds!{name}", SecretString=text)
        return {"rds_login_password": "", "rds_password_secret": made["ARN"]}

    def in_passfile(self, *hosts: str) -> dict[str, Any]:
        """The words of an inventory, as the README has them: paths from the home directory on."""
        passfile = self.folder / "pgpass"
        escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        passfile.write_text("".join(f"{host}:*:*:{MASTER}:{escaped}\n" for host in hosts))
        passfile.chmod(0o600)
        at_home = {
            name: f"~/{os.path.relpath(path, Path.home())}"
            for name, path in (("rds_passfile", passfile), ("rds_ca_cert", self.emulated.ca))
        }
        return {"rds_login_password": "", **at_home}

    # -- the playbooks ---------------------------------------------------------------------------------------------
    def inventory(self, identifier: str, **variables: Any) -> Path:
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "rds_region": HOME,
            "rds_endpoint_url": self.emulated.url,
            "rds_login_user": MASTER,
            "rds_login_password": PASSWORD,
            "rds_ca_cert": str(self.emulated.ca),
            "rds_ssl_mode": "verify-ca",
            **variables,
        }
        path = self.folder / f"{identifier}.json"
        path.write_text(json.dumps(with_everything({"all": {"children": {"rds": {"hosts": {identifier: host}}}}})))
        return path

    def command(
        self, playbook: str, identifier: str, *extra: str, host: Optional[dict[str, Any]] = None, **given: Any
    ) -> list[str]:
        variables: dict[str, Any] = {"dr_report_dir": str(self.reports)} if "dr_" in playbook else {}
        variables |= {"dr_confirm": True} if variables and playbook != ABANDON else {}
        variables.update(given)
        inventory = self.inventory(identifier, **(host or {}))
        return ["ansible-playbook", "-i", str(inventory), playbook, "-e", json.dumps(variables), *extra]

    @staticmethod
    def _policy(playbook: str) -> str:
        return playbook.rpartition(".")[2].replace("_", "-")

    def play(self, playbook: str, identifier: str, *extra: str, policy: str = "", **given: Any) -> Run:
        """Run a playbook; it asks AWS for nothing that its policy in docs/iam does not allow, and shows no secret."""
        earlier = self.emulated.calls()
        with Watch(PLANTED) if "-vvv" in extra else contextlib.nullcontext(Watch(PLANTED)) as watch:
            done = run(self.command(playbook, identifier, *extra, **given), CREDENTIALS)
        shown = [*PLANTED.found_in(done.output.encode()), *watch.seen, *files_with(PLANTED, [self.reports]).items()]
        assert not shown, shown
        name = policy or self._policy(playbook)
        asked = self.emulated.calls()[len(earlier) :]
        self.asked.setdefault(name, []).extend(asked)
        denied = iam.check(iam.load(name), asked, earlier).denied
        assert not denied, f"docs/iam/{name}.json does not allow {denied}"
        return done

    def allowed_for_nothing(self, name: str) -> set[str]:
        """What a policy in docs/iam allows and its playbook asked for in none of its runs."""
        assert name in self.asked, "the other tests of this file come first"
        unused = iam.check(iam.load(name), self.asked[name]).unused
        return {action for action in unused if not iam.FOR_CLUSTERS.fullmatch(action)} - set(NOT_COME_TO)

    def module(self, name: str, region: str = HOME, **arguments: Any) -> Run:
        """Run one module, as an operator tries it."""
        given = {"region": region, "endpoint_url": self.emulated.url, **arguments}
        interpreter = f"ansible_python_interpreter={sys.executable}"
        command = ["ansible", "localhost", "-m", f"dbre.recovery.{name}", "-a", json.dumps(given), "-e", interpreter]
        return run(command, CREDENTIALS)

    def play_killed_in(
        self,
        playbook: str,
        identifier: str,
        phase: str,
        seconds: float,
        once: Callable[[], bool] = lambda: True,
        **given: Any,
    ) -> None:
        """Run the playbook and kill -9 all of it ``seconds`` after ``phase`` began, and not before ``once`` is true."""

        def kill(child: subprocess.Popen[str]) -> None:
            while not once():
                assert child.poll() is None, "it has ended before"
                time.sleep(0.05)
            everything(child)

        events = self.reports / str(given["dr_incident_id"]) / "events.jsonl"
        earlier = len(self.emulated.calls())
        run_killed_in(self.command(playbook, identifier, **given), events, phase, seconds, CREDENTIALS, kill)
        self.asked.setdefault(self._policy(playbook), []).extend(self.emulated.calls()[earlier:])

    def report(self, incident: str) -> dict[str, Any]:
        return json.loads((self.reports / incident / "report.json").read_text())
