"""Repositories away from the cluster: by TLS and in S3 (PostgreSQL 17), by SSH with an old pgBackRest (and 13)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from conftest import Host, Run, hosts_of
from runs import run

CONFIG = "/etc/pgbackrest-away.conf"
PGBACKREST = f"pgbackrest --config={CONFIG} --stanza=away"
REPOSITORY = "/var/lib/pgbackrest-away"
PORT = 6900


@pytest.fixture(scope="module")
def hosts() -> dict[str, Host]:
    return hosts_of(os.environ["DBRE_INVENTORY"])


def sql(host: Host, statements: str, database: str = "postgres") -> str:
    command = f"psql -X -q -A -t -v ON_ERROR_STOP=1 -h /var/run/postgresql -p {PORT} -d {database} -f -"
    return host.run(command, stdin=statements).strip()


def info(host: Host) -> dict[str, Any]:
    return json.loads(host.run(f"{PGBACKREST} --output=json info"), strict=False)[0]


def labels(host: Host, repo: int) -> list[str]:
    return [entry["label"] for entry in info(host)["backup"] if entry["database"].get("repo-key", 1) == repo]


def play(name: str, *options: str, **variables: Any) -> Run:
    """Run a playbook of the collection on this scenario's inventory."""
    sources = [f"--inventory={place}" for place in os.environ["DBRE_INVENTORIES"].split(":")]
    command = ["ansible-playbook", *sources, f"dbre.recovery.{name}", "-e", json.dumps(variables), *options]
    return run(command, {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"})  # long lines stay whole


@contextlib.contextmanager
def lost(host: Host) -> Iterator[None]:
    """The repository host is there no more: its server stands still and its files are gone."""
    host.run(f"systemctl stop pgbackrest; mv {REPOSITORY} {REPOSITORY}.lost", user="root")
    try:
        yield
    finally:
        host.run(f"mv {REPOSITORY}.lost {REPOSITORY}; systemctl start pgbackrest", user="root")


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.5)


# What was provisioned


def test_each_repository_has_a_whole_backup_and_archives(hosts: dict[str, Host]) -> None:
    for primary, repositories in (("deb13d", [1, 2]), ("deb11", [1])):
        found = info(hosts[primary])
        assert found["status"]["code"] == 0
        assert sorted({entry["database"].get("repo-key", 1) for entry in found["backup"]}) == repositories
        assert not any(entry.get("error") for entry in found["backup"])
        assert sql(hosts[primary], "SELECT failed_count FROM pg_stat_archiver") == "0"


def test_the_same_description_gives_each_host_its_part(hosts: dict[str, Host]) -> None:
    primary, keeper = (hosts[name].run(f"cat {CONFIG}") for name in ("deb13d", "deb13e"))
    assert "repo1-host=deb13e" in primary
    assert "repo1-cipher-pass" not in primary
    assert "repo2-s3-key=" in primary
    assert "repo2" not in keeper
    assert "pg1-host=deb13d" in keeper


def test_files_are_encrypted_and_secrets_are_readable_by_nobody_else(hosts: dict[str, Host]) -> None:
    assert hosts["deb13e"].run(f"head -c 8 {REPOSITORY}/backup/away/backup.info") == "Salted__"
    for name in ("deb13d", "deb13e"):
        modes = hosts[name].run(f"stat -c %a {CONFIG} /etc/pgbackrest/tls/host.key", user="root").split()
        assert modes == ["640", "640"]
    assert (
        hosts["deb13e"].run("stat -c '%a %U' /etc/pgbackrest/tls/authority/ca.key", user="root").strip() == "600 root"
    )


def test_a_host_without_a_certificate_of_the_authority_is_not_let_in(hosts: dict[str, Host]) -> None:
    def listing(certificate: str, key: str) -> str:
        options = f"--repo1-host-cert-file={certificate} --repo1-host-key-file={key} --repo=1"
        return hosts["deb13d"].run(f"{PGBACKREST} {options} repo-ls 2>&1 || true")

    own = "/etc/pgbackrest/tls/host"
    assert {"archive", "backup"} <= set(listing(f"{own}.crt", f"{own}.key").split())
    made = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=deb13d -keyout"
    hosts["deb13d"].run(f"cd /var/tmp && {made} stranger.key -out stranger.crt 2>/dev/null")
    said = listing("/var/tmp/stranger.crt", "/var/tmp/stranger.key")
    hosts["deb13d"].run("rm /var/tmp/stranger.*")
    assert "ERROR" in said
    assert "archive\n" not in said


def test_the_ssh_key_of_a_host_opens_nothing_but_pgbackrest(hosts: dict[str, Host]) -> None:
    said = hosts["deb11"].run("ssh -o BatchMode=yes deb11r id 2>&1 || true")
    assert "uid=" not in said
    assert "ermission denied" not in said


# Timers


@contextlib.contextmanager
def often(host: Host, timer: str) -> Iterator[None]:
    """The timer as it is, but for its calendar: every few seconds."""
    directory = f"/etc/systemd/system/{timer}.d"
    host.run(
        f"mkdir {directory} && printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:0/3\\n' > {directory}/often.conf && "
        f"systemctl daemon-reload && systemctl restart {timer}",
        user="root",
    )
    try:
        yield
    finally:
        host.run(
            f"rm -r {directory} && systemctl daemon-reload && systemctl restart {timer}",
            user="root",
        )


@pytest.mark.parametrize(("name", "kind"), [("deb13e", "incr"), ("deb11r", "full")])
def test_a_timer_fires_and_its_backup_is_there(hosts: dict[str, Host], name: str, kind: str) -> None:
    keeper = hosts[name]
    before = labels(keeper, 1)
    with often(keeper, f"dbre-backup-away-{kind}.timer"):
        wait_for(lambda: len(labels(keeper, 1)) > len(before))
    newest = info(keeper)["backup"][-1]
    assert newest["type"] == kind
    unit = f"dbre-backup-away-{kind}.service"
    wait_for(lambda: keeper.run(f"systemctl is-active {unit} || true").strip() == "inactive")
    metrics = keeper.run("cat /var/lib/dbre-recovery/metrics/pgbackrest_away.prom")
    assert f'pgbackrest_backup_error{{stanza="away",type="{kind}",repo="1"}} 0' in metrics


def test_two_backups_that_come_due_at_once_are_taken_one_after_the_other(hosts: dict[str, Host]) -> None:
    keeper = hosts["deb13e"]
    before = labels(keeper, 1)
    units = "dbre-backup-away-full.service dbre-backup-away-incr.service"
    keeper.run(f"systemctl start {units}", user="root")
    assert len(labels(keeper, 1)) == len(before) + 2
    assert "failed" not in keeper.run(f"systemctl is-failed {units} || true")


def test_a_backup_without_room_is_seen_failing_and_breaks_nothing(hosts: dict[str, Host]) -> None:
    keeper, unit = hosts["deb11r"], "dbre-backup-away-full.service"
    before = labels(keeper, 1)
    # Shared memory is a file system of its own, and can be filled.
    keeper.run(
        f"cp -a {REPOSITORY} /dev/shm/repository && mv {REPOSITORY} {REPOSITORY}.aside && "
        f"ln -s /dev/shm/repository {REPOSITORY} && "
        "fallocate -l $(($(stat -f -c '%a * %S' /dev/shm) - 1000000)) /dev/shm/taken",
        user="root",
    )
    try:
        said = keeper.run(f"systemctl start {unit} 2>&1 || true; journalctl -u {unit} -n 20 --no-pager", user="root")
        assert "The file system of the repository may be full" in said
        assert keeper.run(f"systemctl is-failed {unit} || true").strip() == "failed"
        assert 'type="full",repo="1"} 1' in keeper.run("cat /var/lib/dbre-recovery/metrics/pgbackrest_away.prom")
    finally:
        keeper.run(f"rm -rf {REPOSITORY} /dev/shm/* && mv {REPOSITORY}.aside {REPOSITORY}", user="root")
    assert labels(keeper, 1) == before
    keeper.run(f"systemctl start {unit}", user="root")
    assert len(labels(keeper, 1)) > 0


def test_wal_that_is_missing_from_the_repository_is_loud(hosts: dict[str, Host]) -> None:
    primary, keeper, unit = hosts["deb11"], hosts["deb11r"], "dbre-backup-away-full.service"
    archived = "SELECT last_archived_wal FROM pg_stat_archiver"
    names = []
    for _turn in range(2):
        name = sql(primary, "SELECT txid_current(); SELECT pg_walfile_name(pg_switch_wal())").splitlines()[-1]
        wait_for(lambda name=name: sql(primary, archived) >= name)
        names.append(name)
    lost_one = keeper.run(f"ls {REPOSITORY}/archive/away/*/{names[0][:16]}/{names[0]}-*").strip()
    keeper.run(f"mv {lost_one} /var/tmp/lost")
    try:
        said = keeper.run(f"systemctl start {unit} 2>&1 || true; journalctl -u {unit} -n 20 --no-pager", user="root")
        assert f"missing from repository 1, as seen from deb11r: {names[0]}" in said
        assert keeper.run(f"systemctl is-failed {unit} || true").strip() == "failed"
        assert 'type="full",repo="1"} 1' in keeper.run("cat /var/lib/dbre-recovery/metrics/pgbackrest_away.prom")
    finally:
        keeper.run(f"mv /var/tmp/lost {lost_one}")
    keeper.run(f"systemctl start {unit}", user="root")


# What a user asks for


def test_backup_now_takes_one_in_each_repository(hosts: dict[str, Host]) -> None:
    before = {repo: labels(hosts["deb13d"], repo) for repo in (1, 2)}
    run = play("backup_now", "-l", "deb13d:deb13e", backup_type="diff")
    assert run.rc == 0, run.output
    for repo, known in before.items():
        # A timer may have taken one of another type meanwhile.
        (new,) = [label for label in labels(hosts["deb13d"], repo) if label not in known and label.endswith("D")]
        assert new in run.output


def test_the_commands_of_a_snapshot_lead_back(hosts: dict[str, Host]) -> None:
    primary = hosts["deb13d"]
    sql(primary, "DROP TABLE IF EXISTS precious; CREATE TABLE precious AS SELECT generate_series(1, 1000) AS id")
    run = play("snapshot_before_change", "-l", "deb13d:deb13e", change="release 4.2")
    assert run.rc == 0, run.output
    annotated = [entry for entry in info(primary)["backup"] if entry.get("annotation")]
    assert annotated[-1]["annotation"] == {"before-change": "release 4.2"}
    sql(primary, "DROP TABLE precious")
    commands = re.findall(r"^\s*(?:- |\")?'?\s*(sudo [^\"']+)", run.output, re.MULTILINE)
    assert len(commands) == 3, run.output
    for command in commands:
        primary.run(command.replace("\\n", ""), user="root")
    wait_for(lambda: sql(primary, "SELECT pg_is_in_recovery()") == "f")
    assert sql(primary, "SELECT count(*) FROM precious") == "1000"


def drop_and_recover(hosts: dict[str, Host], incident: str, folder: str, **given: Any) -> tuple[Run, str]:
    primary = hosts["deb13d"]
    sql(primary, "DROP DATABASE IF EXISTS shop", "postgres")
    sql(primary, "CREATE DATABASE shop", "postgres")
    sql(primary, "CREATE TABLE orders AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 5000) g", "shop")
    checksum = "SELECT count(*), md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o"
    before = sql(primary, checksum, "shop")
    sql(primary, "DROP TABLE orders", "shop")
    run = play(
        "dr_table_drop",
        dr_primary="deb13d",
        dr_database="shop",
        dr_tables="orders",
        dr_confirm=True,
        dr_incident_id=incident,
        dr_report_dir=folder,
        **given,
    )
    assert run.rc == 0, run.output
    assert sql(primary, checksum, "shop") == before
    return run, json.dumps(json.loads(open(f"{folder}/{incident}/plan.json").read()))


def test_a_dropped_table_comes_back_by_way_of_the_repository_host(hosts: dict[str, Host], tmp_path: Any) -> None:
    _run, plan = drop_and_recover(hosts, "by-host", str(tmp_path))
    assert json.loads(plan)["side_host"] == "deb13e"


def test_with_one_of_two_repositories_lost_a_dropped_table_comes_back_from_the_other(
    hosts: dict[str, Host], tmp_path: Any
) -> None:
    with lost(hosts["deb13e"]):
        # The repository host, where the side instance would go, is the one that is lost.
        _run, plan = drop_and_recover(hosts, "from-s3", str(tmp_path), dr_recovery_group="primary")
    assert json.loads(plan)["restore_plan"]["set"]["repo"] == 2
    wait_for(lambda: sql(hosts["deb13d"], "SELECT pg_switch_wal() IS NOT NULL") == "t")


# Restore tests


VERIFY = "dbre-restore-test-away"
VERIFIED = "/var/lib/dbre-recovery/verifications"


def left_of_tests(keeper: Host) -> list[str]:
    """What a restore test must not leave: its directory, and processes that work there."""
    return keeper.run("ls -d /var/lib/postgresql/dbre-recovery/* 2>&-; pgrep -fa '[v]erify-away' || true").splitlines()


def reports(keeper: Host) -> list[dict[str, Any]]:
    """Of all tests that there were, the newest last."""
    paths = keeper.run(f"ls -tr {VERIFIED}/*/report.json || true").split()
    return [json.loads(keeper.run(f"cat {path}")) for path in paths]


@pytest.mark.whole
def test_a_timer_of_systemd_tests_restores_and_leaves_nothing_even_when_it_is_killed(hosts: dict[str, Host]) -> None:
    keeper = hosts["deb13e"]
    before = len(reports(keeper))
    # The other primary's stanza has the same name, and is another host's to test.
    by_hand = play("verify_backups", verify_hosts="deb13e", backup_verification_compare=["postgres"])
    assert by_hand.rc == 0, by_hand.output
    done = provision(backup_verification_enabled=True)
    assert done.rc == 0, done.output
    again = provision(backup_verification_enabled=True)
    assert "changed=0" in again.output
    assert left_of_tests(keeper) == []

    with often(keeper, f"{VERIFY}.timer"):
        wait_for(lambda: len(reports(keeper)) > before + 1, 240)
    wait_for(lambda: keeper.run(f"systemctl is-active {VERIFY}.service || true").strip() in ("inactive", "failed"), 120)
    assert {report["verdict"] for report in reports(keeper)[before:]} == {"verified"}
    assert left_of_tests(keeper) == []

    # Killed in the middle of a restore, as where memory is short: by a signal that no program can catch.
    keeper.run(f"systemctl start --no-block {VERIFY}.service", user="root")
    wait_for(lambda: any("verify-away" in line for line in left_of_tests(keeper)))
    keeper.run(f"kill -KILL $(systemctl show --property=MainPID --value {VERIFY}.service)", user="root")
    wait_for(lambda: keeper.run(f"systemctl is-failed {VERIFY}.service || true").strip() == "failed", 120)
    assert left_of_tests(keeper) == []

    # One that finds a fault fails its unit, and says which.
    segments = keeper.run(f"find {REPOSITORY}/archive/away/ -regex '.*/[0-9A-F]+-[0-9a-f]+.*' | sort").split()
    lost_one = segments[len(segments) // 2]
    keeper.run(f"mv {lost_one} {REPOSITORY}/aside")
    try:
        keeper.run(f"systemctl start {VERIFY}.service || true", user="root")
    finally:
        keeper.run(f"mv {REPOSITORY}/aside {lost_one}")
    assert keeper.run(f"systemctl is-failed {VERIFY}.service || true").strip() == "failed"
    newest = reports(keeper)[-1]
    assert newest["verdict"] == "failed"
    assert "WAL_LOST" in {finding["code"] for finding in newest["findings"]}
    assert left_of_tests(keeper) == []


# What cannot work


def refused(run: Run, *words: str) -> None:
    assert run.rc != 0, run.output
    for word in words:
        assert word in run.output, f"{word!r} is not in:\n{run.output}"
    assert "Traceback" not in run.output


def state(hosts: dict[str, Host]) -> list[str]:
    """What must be as before after a refusal: the configuration, and that backups and archive can be read."""
    return [hosts[name].run(f"cat {CONFIG}") for name in ("deb13d", "deb13e")] + [
        str(info(hosts["deb13d"])["status"]["code"])
    ]


def provision(**variables: Any) -> Run:
    return play("provision_primary", "-l", "deb13d:deb13e", **variables)


@pytest.mark.parametrize("repo", [pytest.param(1, marks=pytest.mark.whole), 2])
def test_a_wrong_passphrase_does_not_replace_the_right_one(hosts: dict[str, Host], repo: int) -> None:
    before = state(hosts)
    secrets = {
        "repo1-cipher-pass": "only for tests 1",
        "repo2-cipher-pass": "only for tests 2",
        "repo2-s3-key": "key",
        "repo2-s3-key-secret": "secret",
        f"repo{repo}-cipher-pass": "mistyped-7342",
    }
    run = provision(pgbackrest_secrets={"global": secrets})
    refused(run, f"repository {repo} of stanza 'away' could be read before", "passphrase", "stays in force")
    assert "mistyped-7342" not in run.output
    assert state(hosts) == before


def test_a_retention_that_cannot_keep_the_policy_is_refused_before_anything(hosts: dict[str, Host]) -> None:
    before = state(hosts)
    refused(
        provision(backup_policy={"retention": {"full": 2}}), "cannot be kept", "keep 8 full backups", "window is 7d"
    )
    assert state(hosts) == before


def test_two_primaries_that_claim_one_stanza_are_refused(hosts: dict[str, Host]) -> None:
    before = state(hosts)
    run = play("provision_primary", "-l", "deb13d:deb11", pgbackrest_repository_hosts={1: "deb13e"})
    refused(run, "claim the same stanza 'away'", "pgbackrest_cluster_hosts")
    assert state(hosts) == before


def test_the_stanza_of_another_cluster_is_refused(hosts: dict[str, Host]) -> None:
    before = state(hosts)
    variables = {"postgresql_cluster_name": "intruder", "postgresql_port": 6901}
    try:
        refused(provision(**variables), "belongs to another cluster", "system identifier")
    finally:
        hosts["deb13d"].run("pg_dropcluster --stop 17 intruder || true", user="root")
    hosts["deb13d"].run(f"sed -i 's/6901/6900/; s|17/intruder|17/away|' {CONFIG}", user="root")
    hosts["deb13e"].run(f"sed -i 's/6901/6900/; s|17/intruder|17/away|' {CONFIG}", user="root")
    assert state(hosts) == before


def sign(hosts: dict[str, Host], host: str, name: str, days: str) -> None:
    """Give a host another certificate of the authority."""
    directory = "/etc/pgbackrest/tls"
    request = hosts[host].run(f"openssl req -new -key {directory}/host.key -subj /CN={name}", user="root")
    script = (
        f"cd $(mktemp -d) && cat > r && printf 'subjectAltName=DNS:{name}' > e && openssl x509 -req -in r "
        f"-CA {directory}/authority/ca.crt -CAkey {directory}/authority/ca.key "
        f"-CAcreateserial -CAserial s {days} -extfile e"
    )
    certificate = hosts["deb13e"].run(script, user="root", stdin=request)
    hosts[host].run(f"cat > {directory}/host.crt", user="root", stdin=certificate)
    hosts[host].run("systemctl restart pgbackrest", user="root")


TIMERS = {"low": {"full"}, "standard": {"full", "incr"}}


@pytest.mark.parametrize(
    ("tier", "name", "days", "word"),
    [
        pytest.param(
            *("low", "deb13e", "-not_before 20200101000000Z -not_after 20210101000000Z", "certificate has expired"),
            marks=pytest.mark.whole,
        ),
        ("standard", "elsewhere", "-days 30", "unable to find hostname 'deb13e' in certificate"),
    ],
)
def test_a_bad_certificate_is_named_and_a_run_renews_it_and_leaves_no_timer_of_another_tier(
    hosts: dict[str, Host], tier: str, name: str, days: str, word: str
) -> None:
    sign(hosts, "deb13e", name, days)
    said: Optional[str] = None
    try:
        said = hosts["deb13d"].run(f"{PGBACKREST} --repo=1 --output=json info")
    finally:
        run = provision(backup_tier=tier)
    assert run.rc == 0, run.output
    assert word in said
    assert info(hosts["deb13d"])["status"]["code"] == 0
    keeper = hosts["deb13e"]
    listed = keeper.run("systemctl list-timers --all --no-legend 'dbre-backup-away-*'", user="root")
    assert set(re.findall(r"dbre-backup-away-(\w+)\.timer", listed)) == TIMERS[tier]
    assert ("incr" in keeper.run("ls /etc/systemd/system")) == ("incr" in TIMERS[tier])
    assert ("repo1-retention-full=4" in keeper.run(f"cat {CONFIG}")) == (tier == "low")
