# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log as AWS hands it out, by botocore's own service models."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.module import RETRIED, Retrying
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.incident_time import Asked, Search
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.logs import (
    CUT,
    FileReader,
    LogFile,
    filter_pattern,
    log_files,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import State
from botocore.config import Config
from botocore.stub import ANY, Stubber

DATA = Path(__file__).parent / "data" / "log"
NOW = datetime(2026, 11, 25, 12, 30, tzinfo=timezone.utc)
SINCE = NOW - timedelta(hours=2)
LINE = "2026-11-25 12:00:0{} UTC:[local]:app@shop:[7]:LOG:  statement: select {}\n"
NOWHERE: Login = {"login_host": "127.0.0.1", "login_port": 1, "login_user": "postgres"}


def client(service: str) -> Any:
    return botocore.session.get_session().create_client(
        service,
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )


class Aws:
    """Stubbed clients of RDS and CloudWatch Logs."""

    def __init__(self) -> None:
        self.rds, self.logs = client("rds"), client("logs")
        self.rds_stub, self.logs_stub = Stubber(self.rds), Stubber(self.logs)

    def search(self, **params: Any) -> Search:
        asked = Asked(**{"database": "shop", "relations": ["public.orders"], "since": SINCE.isoformat(), **params})
        return Search(Rds(self.rds, "eu-central-1"), lambda: self.logs, NOWHERE, asked, Progress(None), NOW)

    def instance(self, **more: Any) -> None:
        found = {
            "DBInstanceIdentifier": "shop",
            "Engine": "postgres",
            "DBParameterGroups": [{"DBParameterGroupName": "default.postgres15"}],
            **more,
        }
        self.rds_stub.add_response("describe_db_instances", {"DBInstances": [found]}, {"DBInstanceIdentifier": "shop"})

    def parameters(self, **values: str) -> None:
        found = [{"ParameterName": name, "ParameterValue": text} for name, text in values.items()]
        self.rds_stub.add_response(
            "describe_db_parameters", {"Parameters": found}, {"DBParameterGroupName": "default.postgres15"}
        )

    def files(self, instance: str, *files: tuple[str, datetime, int]) -> None:
        found = [
            {"LogFileName": name, "LastWritten": int(written.timestamp() * 1000), "Size": size}
            for name, written, size in files
        ]
        asked = {
            "DBInstanceIdentifier": instance,
            "FilenameContains": "postgresql.log",
            "FileLastWritten": int(SINCE.timestamp() * 1000),
        }
        self.rds_stub.add_response("describe_db_log_files", {"DescribeDBLogFiles": found}, asked)

    def portion(
        self, instance: str, name: str, text: str, marker: str = "0", following: str = "", lines: int = 10000
    ) -> None:
        answer = {"LogFileData": text, "Marker": following or "end", "AdditionalDataPending": bool(following)}
        asked = {"DBInstanceIdentifier": instance, "LogFileName": name, "Marker": marker, "NumberOfLines": lines}
        self.rds_stub.add_response("download_db_log_file_portion", answer, asked)

    def events(self, events: list[tuple[str, datetime, str]], token: str = "", **asked: Any) -> None:
        found = [
            {"logStreamName": stream, "timestamp": int(at.timestamp() * 1000), "message": text}
            for stream, at, text in events
        ]
        answer: dict[str, Any] = {"events": found, **({"nextToken": token} if token else {})}
        given = {"logGroupName": ANY, "startTime": ANY, "endTime": ANY, **asked}
        self.logs_stub.add_response("filter_log_events", answer, given)


@pytest.fixture
def aws() -> Any:
    stubbed = Aws()
    with stubbed.rds_stub, stubbed.logs_stub:
        yield stubbed
        stubbed.rds_stub.assert_no_pending_responses()
        stubbed.logs_stub.assert_no_pending_responses()


def read(aws: Aws, *names: str) -> tuple[list[str], FileReader]:
    reader = FileReader(Rds(aws.rds, "eu-central-1"), Progress(None), 0)
    files = [LogFile("shop", name, NOW, 100) for name in names]
    return list(reader.lines(files)), reader


def test_only_files_that_overlap_the_window_are_read_oldest_first(aws: Aws) -> None:
    hours = [NOW - timedelta(minutes=minutes) for minutes in (100, 60, 30, 0)]
    names = [f"error/postgresql.log.2026-11-25-{number}" for number in range(4)]
    entries = [(name, written, 10) for name, written in zip(names, hours)]
    aws.files("shop", *reversed(entries), ("error/postgresql.log.2026-11-25-0.csv", hours[0], 10))
    found = log_files(Rds(aws.rds, "eu-central-1"), "shop", SINCE, NOW - timedelta(minutes=59))
    # The third began when the second had ended, and within the window.
    assert [file.name for file in found] == names[:3]


def test_a_file_is_read_page_by_page_and_lines_that_a_page_cuts_are_joined(aws: Aws) -> None:
    whole = LINE.format(1, 1) + LINE.format(2, 2) + LINE.format(3, 3)
    aws.portion("shop", "a", whole[:100], following="m1")
    aws.portion("shop", "a", whole[100:], marker="m1")
    lines, reader = read(aws, "a")
    assert lines == whole.splitlines()
    assert reader.bytes == len(whole)


def test_a_page_that_ends_at_a_line_without_its_newline_does_not_join_two_lines(aws: Aws) -> None:
    aws.portion("shop", "a", LINE.format(1, 1).rstrip("\n"), following="m1")
    aws.portion("shop", "a", LINE.format(2, 2).rstrip("\n"), marker="m1", following="m2")
    aws.portion("shop", "a", "\tfrom t\n", marker="m2")
    assert read(aws, "a")[0] == [LINE.format(1, 1).rstrip(), LINE.format(2, 2).rstrip(), "\tfrom t"]


def test_a_page_that_aws_cut_is_asked_for_again_in_smaller_pieces(aws: Aws) -> None:
    cut = LINE.format(1, 1)[:40] + f"\n {CUT}\n"
    aws.portion("shop", "a", cut, following="m9")
    aws.portion("shop", "a", cut, lines=1000, following="m9")
    aws.portion("shop", "a", LINE.format(1, 1), lines=100, following="m1")
    aws.portion("shop", "a", LINE.format(2, 2), marker="m1")
    lines, reader = read(aws, "a")
    assert (lines, reader.cut) == ([LINE.format(1, 1).rstrip(), LINE.format(2, 2).rstrip()], 0)


def test_a_file_that_was_deleted_meanwhile_is_told_of(aws: Aws) -> None:
    aws.rds_stub.add_client_error("download_db_log_file_portion", "DBLogFileNotFoundFault")
    aws.portion("shop", "b", LINE.format(1, 1))
    lines, reader = read(aws, "a", "b")
    assert (len(lines), reader.vanished) == (1, ["a"])


def test_throttled_pages_are_asked_for_again(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("ansible_collections.amazon.aws.plugins.module_utils.cloud.time.sleep", pauses.append)
    aws.portion("shop", "a", LINE.format(1, 1), following="m1")
    aws.rds_stub.add_client_error("download_db_log_file_portion", "Throttling", "Rate exceeded")
    aws.rds_stub.add_client_error("download_db_log_file_portion", "Throttling", "Rate exceeded")
    aws.portion("shop", "a", LINE.format(2, 2), marker="m1")
    aws.rds = Retrying(aws.rds, AWSRetry.jittered_backoff(catch_extra_error_codes=RETRIED))
    assert len(read(aws, "a")[0]) == 2
    assert len(pauses) == 2


def test_an_incident_is_found_in_the_files_of_an_instance_whose_database_is_not_reached(aws: Aws) -> None:
    aws.instance()
    aws.parameters(log_line_prefix="%m [%p] %q%u@%d/%a xid=%x %e ", log_statement="ddl")
    first, second = ("error/postgresql.log.2026-11-25-11", "error/postgresql.log.2026-11-25-12")
    text = (DATA / "prefix-custom.txt").read_text()
    aws.files("shop", (first, NOW - timedelta(minutes=20), 9), (second, NOW, len(text)))
    aws.portion("shop", first, "")
    aws.portion("shop", second, text[:30], following="m")
    aws.portion("shop", second, text[30:], marker="m")
    found = aws.search(db_instance_identifier="shop").find()
    logged = datetime.fromisoformat(f"{text[:23]}+00:00")
    assert found["target"]["value"] == logged.replace(microsecond=0).isoformat()
    assert found["method"] == "log"
    assert found["looked_at"]["files"] == 2
    assert found["looked_at"]["bytes"] == len(text)
    assert any("not looked at: cannot connect" in item["text"] for item in found["evidence"])


def test_a_drop_in_the_second_in_which_the_search_begins_is_found(aws: Aws) -> None:
    aws.instance()
    aws.parameters()
    text = (DATA / "drop.txt").read_text()
    since = datetime.fromisoformat(f"{text[:19]}.900000+00:00")
    name = "error/postgresql.log.2026-11-25-12"
    aws.rds_stub.add_response(
        "describe_db_log_files", {"DescribeDBLogFiles": [{"LogFileName": name, "LastWritten": 1, "Size": 1}]}
    )
    aws.portion("shop", name, text)
    found = aws.search(db_instance_identifier="shop", since=since.isoformat()).find()
    assert found["target"]["value"] == since.replace(microsecond=0).isoformat()


def test_the_logs_of_all_members_of_a_cluster_are_read_the_writers_first(aws: Aws) -> None:
    cluster = {
        "DBClusterIdentifier": "shop",
        "Engine": "aurora-postgresql",
        "Endpoint": "shop.cluster-x.eu-central-1.rds.amazonaws.com",
        "Port": 5432,
        "DBClusterParameterGroup": "shop-cluster",
        "DBClusterMembers": [
            {"DBInstanceIdentifier": "shop-2", "IsClusterWriter": False},
            {"DBInstanceIdentifier": "shop-1", "IsClusterWriter": True},
        ],
    }
    aws.rds_stub.add_response("describe_db_clusters", {"DBClusters": [cluster]}, {"DBClusterIdentifier": "shop"})
    aws.rds_stub.add_response(
        "describe_db_cluster_parameters", {"Parameters": []}, {"DBClusterParameterGroupName": "shop-cluster"}
    )
    name = "error/postgresql.log.2026-11-25-1200"
    aws.files("shop-1", (name, NOW, 0))
    aws.portion("shop-1", name, "")
    aws.files("shop-2", (name, NOW, 900))  # the writer before a failover
    aws.portion("shop-2", name, (DATA / "drop.txt").read_text())
    found = aws.search(db_cluster_identifier="shop").find()
    assert found["looked_at"]["instances"] == ["shop-1", "shop-2"]
    assert found["candidates"][0]["instance"] == "shop-2"
    assert any(item["source"] == "aws" and "Aurora" in item["text"] for item in found["evidence"])


def test_an_exported_log_is_searched_in_cloudwatch_and_read_around_what_was_found(aws: Aws) -> None:
    aws.instance(EnabledCloudwatchLogsExports=["postgresql"])
    aws.parameters()
    lines = (DATA / "drop-rolled-back.txt").read_text().splitlines()
    at = datetime.fromisoformat(f"{lines[0][:19]}+00:00")
    hit, later = ("shop.0", at, lines[1]), ("shop.0", at + timedelta(minutes=10), lines[1])
    pattern = filter_pattern(["orders"])
    aws.events([hit], token="t1", filterPattern=pattern)
    aws.events([], token="t2", filterPattern=pattern, nextToken="t1")  # an empty page is not the end
    aws.events([hit, later], filterPattern=pattern, nextToken="t2")
    around = [("shop.0", at, line) for line in lines]
    aws.events(around[:2], token="t3", logStreamNames=["shop.0"])
    aws.events(around[2:], logStreamNames=["shop.0"], nextToken="t3")
    dropped = (DATA / "drop-multiline.txt").read_text().rstrip("\n").replace("12:14", "12:24")
    aws.events([("shop.0", at + timedelta(minutes=10), dropped)], logStreamNames=["shop.0"])
    found = aws.search(db_instance_identifier="shop").find()
    assert [one["outcome"] for one in found["candidates"]] == ["rolled_back"] * 2 + ["unknown"]
    assert found["incident"]["statement"].startswith("DROP TABLE IF EXISTS")
    assert found["looked_at"]["events"] > 0
    assert found["looked_at"]["files"] == 0


def test_a_log_group_that_cannot_be_read_leaves_the_files(aws: Aws) -> None:
    aws.instance(EnabledCloudwatchLogsExports=["postgresql"])
    aws.parameters()
    aws.logs_stub.add_client_error("filter_log_events", "ResourceNotFoundException", "no such group")
    name = "error/postgresql.log.2026-11-25-12"
    aws.files("shop", (name, NOW, 900))
    aws.portion("shop", name, (DATA / "drop.txt").read_text())
    found = aws.search(db_instance_identifier="shop").find()
    assert "log files instead: no such group (ResourceNotFoundException)" in found["evidence"][1]["text"]


def test_a_filter_pattern_finds_a_name_in_any_case_within_what_cloudwatch_allows() -> None:
    pattern = filter_pattern(["a_1", "Ü-ß b"])
    assert pattern is not None
    assert pattern.startswith("%[Aa]_1|....[Bb]|[Cc][Aa][Ss]")
    assert pattern.endswith(r"[Dd][Rr][Oo][Pp]\s+[Oo][Ww][Nn][Ee][Dd]%")
    assert filter_pattern(["a" * 63] * 8) is None


def test_too_many_names_for_a_pattern_are_looked_for_in_everything(aws: Aws) -> None:
    aws.instance(EnabledCloudwatchLogsExports=["postgresql"])
    aws.parameters()
    text = (DATA / "drop.txt").read_text()
    aws.events([("shop.0", NOW - timedelta(minutes=10), text)])
    names = [f"{'x' * 50}{number}" for number in range(8)]
    with pytest.raises(RecoveryError, match="nothing tells when") as caught:
        aws.search(db_instance_identifier="shop", relations=["public.orders", *names]).find()
    assert "Of the rest it is clear: drop_table of public.orders" in caught.value.msg


def test_where_nothing_is_found_the_error_names_what_would_have_told_and_the_way_that_remains(aws: Aws) -> None:
    aws.instance()
    aws.parameters(log_statement="none")
    name = "error/postgresql.log.2026-11-25-12"
    aws.files("shop", (name, NOW, 900))
    aws.portion("shop", name, (DATA / "drop-failed.txt").read_text().splitlines()[0] + "\n")
    with pytest.raises(RecoveryError) as caught:
        aws.search(db_instance_identifier="shop", relations=["public.other"]).find()
    told = caught.value.msg
    assert "nothing tells when public.other of shop was damaged between 2026-11-25T10:30:00+00:00" in told
    assert "shop: 1 files from error/postgresql.log.2026-11-25-12" in told
    assert "1 statements" in told
    assert "ParameterName=log_statement,ParameterValue=ddl,ApplyMethod=immediate" in told
    assert "default.postgres15" in told
    assert "a default group cannot be changed" in told
    assert "ParameterName=track_commit_timestamp,ParameterValue=1,ApplyMethod=pending-reboot" in told
    assert "modify-db-instance --db-instance-identifier shop --cloudwatch-logs-export-configuration" in told
    assert "takes at most 7 restores" in told
    assert caught.value.details["bisect"]["restores"] == 7
    assert caught.value.details["evidence"]


def test_a_nightly_rebuild_is_not_taken_for_the_drop_that_no_log_shows(aws: Aws) -> None:
    aws.instance()
    aws.parameters(log_statement="ddl")
    name = "error/postgresql.log.2026-11-25-12"
    aws.files("shop", (name, NOW, 900))
    begin = "2026-11-25 11:00:00 UTC:[local]:job@shop:[7]:LOG:  statement: "
    aws.portion("shop", name, f"{begin}DROP TABLE public.orders;\n{begin}CREATE TABLE public.orders (id int);\n")
    search = aws.search(db_instance_identifier="shop")
    search.states = {search.wanted.subjects[0]: State(False)}
    with pytest.raises(RecoveryError) as caught:
        search.find()
    told = caught.value.msg
    assert "Seen, but the log shows it made anew after that" in told
    assert "dr_target_time=2026-11-25T11:00:00" not in told, "it would bring back what was there before the rebuild"


@pytest.mark.parametrize("error", ["DBInstanceNotFound", "DBInstanceNotFoundFault"])
def test_an_instance_that_is_not_there_is_named_with_its_region(aws: Aws, error: str) -> None:
    aws.rds_stub.add_client_error("describe_db_instances", error)
    with pytest.raises(RecoveryError, match="DB instance shop does not exist in eu-central-1"):
        aws.search(db_instance_identifier="shop").find()


def test_the_operators_moment_is_taken_to_the_second_without_a_search(aws: Aws) -> None:
    aws.instance()
    found = aws.search(db_instance_identifier="shop", target_time="2026-11-25T14:14:03.731+02:00").find()
    assert found["target"]["value"] == "2026-11-25T12:14:03+00:00"
    assert (found["method"], found["precision_seconds"], found["lost"]["seconds"]) == ("operator", 1.0, None)
    assert "so it is 2026-11-25T12:14:03+00:00" in found["lost_at_most"]
    assert found["incident"]["commit_time"] is None


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"target_time": "2026-11-25T12:14:03"}, "target_time: .* has no UTC offset"),
        ({"target_time": "2026-11-25T13:14:03+00:00"}, "is in the future"),
    ],
)
def test_a_moment_that_cannot_be_is_refused(aws: Aws, params: dict[str, Any], match: str) -> None:
    aws.instance()
    with pytest.raises(RecoveryError, match=match):
        aws.search(db_instance_identifier="shop", **params).find()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"since": "2026-11-25T12:00:00+00:00", "until": "2026-11-25T11:00:00+00:00"}, "is not before until"),
        ({"since": "12:00"}, "since: '12:00' is no time"),
        ({"relations": ["a.b.c"]}, "3 parts"),
        ({"schemas": ["a.b"]}, "no schema"),
    ],
)
def test_what_cannot_be_read_is_refused_before_aws_is_asked(aws: Aws, params: dict[str, Any], match: str) -> None:
    with pytest.raises(RecoveryError, match=match):
        aws.search(db_instance_identifier="shop", **params)
