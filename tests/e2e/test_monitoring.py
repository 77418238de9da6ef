"""Alerts that fire by what they are about: real faults, seen by Prometheus, told by Alertmanager, and ended by mending.

The tier is one of seconds (extensions/molecule/monitoring). Of the rules only times are shorter; each is as the role
wrote it otherwise. The tests go from one to the next: timers that one has stopped let the next make backups itself.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Host, hosts_of

ROOT = Path(__file__).resolve().parents[2]
STANZA, PORT = "watched", 6260
REPO1, REPO2 = "/dev/shm/pgbackrest-watched", "/var/lib/pgbackrest-watched-2"
STATE = "/var/lib/dbre-recovery"
SETTINGS = f"/usr/local/lib/dbre-recovery/metrics/{STANZA}.json"
RULES, DRILL = "/etc/prometheus/dbre-backup.rules.yml", "/etc/prometheus/dbre-drill.rules.yml"
TEST = f"{STATE}/verification-{STANZA}.json"
PATIENCE = 240  # seconds until an alert that does not come, or go, is given up
# Times in rules that cannot be waited for.
SHORTER = {"> 900": "> 8", "[1d], 4 * 86400": "[20s], 60", "[10m]": "[10s]"}


class Drill:
    """The host, what Alertmanager told, and faults."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.prometheus = f"http://{host.variables['ansible_host']}:9090/api/v1"
        self.told: dict[str, dict[str, Any]] = {}  # the last notification of each alert and its labels
        self.fired: set[str] = set()

    # -- what is told ----------------------------------------------------------------------------------------------
    def notify(self, notification: dict[str, Any]) -> None:
        for alert in notification["alerts"]:
            self.told[json.dumps(alert["labels"], sort_keys=True)] = alert
            if alert["status"] == "firing":
                self.fired.add(alert["labels"]["alertname"])

    def firing(self) -> dict[str, dict[str, Any]]:
        """Of each alert that fires now, one notification."""
        return {a["labels"]["alertname"]: a for a in list(self.told.values()) if a["status"] == "firing"}

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                metrics = self.host.run(f"grep -hv '^#' {STATE}/metrics/*.prom", check=False)
                raise AssertionError(f"{what}; what fires is {sorted(self.firing())}\n{metrics}")
            time.sleep(0.2)

    def fires(self, *alerts: str) -> None:
        """Wait until they are told of, as a tired person understands them, and do what their runbooks begin with."""
        for name in alerts:
            self.wait(f"{name} does not fire", lambda name=name: name in self.firing())  # type: ignore[misc]
            alert = self.firing()[name]
            assert alert["labels"]["severity"] == "critical"
            assert alert["labels"]["tier"] == "hasty"
            assert alert["annotations"]["summary"].startswith(f"Stanza {STANZA}: ")
            page = ROOT / "docs" / "runbooks" / Path(urllib.parse.urlparse(alert["annotations"]["runbook"]).path).name
            text = page.read_text()
            assert text.startswith(f"# {name}\n")
            command = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)[0]
            assert self.host.run(command, user="admin").strip(), f"{command} says nothing"

    def ends(self, *alerts: str) -> None:
        for name in alerts:
            self.wait(f"{name} does not end", lambda name=name: name not in self.firing())  # type: ignore[misc]

    def ask(self, query: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.prometheus}/query?{urllib.parse.urlencode({'query': query})}") as answer:
            return list(json.load(answer)["data"]["result"])

    # -- what is done ----------------------------------------------------------------------------------------------
    def root(self, script: str) -> str:
        return self.host.run(script, user="root")

    def sql(self, *statements: str) -> str:
        options = " ".join(f'-c "{statement}"' for statement in statements)
        return self.host.run(f"psql -X -q -A -t -v ON_ERROR_STOP=1 -p {PORT} -d postgres {options}").strip()

    def backup(self, kind: str, check: bool = True) -> None:
        """As the timer does."""
        self.host.run(f"systemctl start dbre-backup-{STANZA}-{kind}.service", user="root", check=check)

    def switch(self, times: int) -> None:
        """Finish as many segments, each with something in it."""
        for _time in range(times):
            self.sql("SELECT pg_logical_emit_message(true, 'drill', 'x')", "SELECT pg_switch_wal()")

    def archived(self) -> None:
        """Wait until nothing waits to be archived."""
        self.host.run(
            f"for i in $(seq 300); do ls {self.pg_path()}/pg_wal/archive_status | grep -q ready || exit 0;"
            " sleep 0.1; done; exit 1"
        )

    def pg_path(self) -> str:
        return f"/var/lib/postgresql/17/{STANZA}"

    def archive_by(self, command: str) -> None:
        value = f"SET archive_command = '{command}'" if command else "RESET archive_command"
        self.sql(f"ALTER SYSTEM {value}", "SELECT pg_reload_conf()")

    def restore_test(self, verdict: str, rto: float = 1, rpo: float = 1) -> None:
        """What a restore test leaves that ended now."""
        now = datetime.now(timezone.utc).isoformat()
        attempt = {"began": now, "ended": now, "verdict": verdict, "rto": {"seconds": rto}, "rpo": {"seconds": rpo}}
        self.host.run(f"cat > {TEST}.new && mv {TEST}.new {TEST}", stdin=json.dumps({"attempts": [attempt]}))

    def timers(self, verb: str) -> None:
        units = f"dbre-backup-{STANZA}-full dbre-backup-{STANZA}-incr"
        self.root(f"for unit in {units}; do systemctl {verb} $unit.timer; done")
        if verb == "stop":
            # What they have started goes on, one after the other.
            ended = f"for unit in {units}; do systemctl show -p ActiveState $unit.service; done | grep -q activating"
            self.root(f"for i in $(seq 300); do {ended} || exit 0; sleep 0.2; done; exit 1")

    def segments(self, repository: str) -> list[str]:
        """Files of WAL segments in a repository, oldest first."""
        return self.host.run(f"find {repository}/archive/{STANZA}/17-1 -name '0*-*' | sort").split()


def shorter(rules: str) -> str:
    """The rules with times that can be waited for."""
    groups = yaml.safe_load(rules)
    for rule in groups["groups"][0]["rules"]:
        if rule.get("for", "0m") != "0m":
            rule["for"] = "15s" if rule["alert"] == "BackupStuck" else "2s"
    text = yaml.safe_dump(groups, width=10**9)
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    return text


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    """Alertmanager tells this process."""
    made = Drill(hosts_of(os.environ["DBRE_INVENTORY"])["deb13b"])

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.notify(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    # What it told another run it would not tell again.
    made.root(
        "systemctl stop prometheus-alertmanager; rm -rf /var/lib/prometheus/alertmanager/*;"
        " systemctl start prometheus-alertmanager"
    )
    server = ThreadingHTTPServer(("", 9099), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    certificates = [f"{STATE}/drill-{name}.crt" for name in ("expires", "unreadable")]
    settings = json.loads(made.root(f"cat {SETTINGS}"))
    made.host.run(f"cat > {SETTINGS}", user="root", stdin=json.dumps({**settings, "certificates": certificates}))
    certify(made, 90)
    rules = made.root(f"cat {RULES}")
    made.host.run(f"cat > {DRILL} && mv {RULES} {RULES}.whole", user="root", stdin=shorter(rules))
    made.root("promtool check rules " + DRILL + " > /dev/null && systemctl reload prometheus")
    yield made
    made.timers("start")
    made.root(f"rm {DRILL}; mv {RULES}.whole {RULES}; rm -f {STATE}/drill-* {TEST}; systemctl reload prometheus")
    made.host.run(f"cat > {SETTINGS}", user="root", stdin=json.dumps(settings))
    server.shutdown()


def certify(drill: Drill, days: int) -> None:
    """A certificate that ends so many days from now; a second can be read only if the first does not end soon."""
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout /dev/null -days {days} 2>/dev/null"
    second = f"cp {STATE}/drill-expires.crt" if days > 14 else "echo rubbish >"
    drill.host.run(f"{make} -out {STATE}/drill-expires.crt && {second} {STATE}/drill-unreadable.crt")


def test_all_is_quiet_while_the_timers_do_their_work(drill: Drill) -> None:
    drill.fires("RestoreTestSilent")  # none was ever made
    drill.restore_test("verified")
    drill.ends("RestoreTestSilent")
    drill.wait("something else fires", lambda: not set(drill.firing()) - {"RestoreTestSilent"})
    drill.timers("stop")
    drill.fires("BackupTimerStopped")


def test_certificates_that_expire_or_cannot_be_read(drill: Drill) -> None:
    certify(drill, 5)
    drill.fires("BackupCertificateExpiring", "BackupCertificateUnreadable")
    certify(drill, 90)
    drill.ends("BackupCertificateExpiring", "BackupCertificateUnreadable")


def test_what_a_restore_test_finds(drill: Drill) -> None:
    drill.restore_test("failed", rto=120, rpo=60)
    drill.fires("RestoreTestFailed", "RtoExceeded", "RpoExceeded")
    drill.restore_test("could_not_verify")
    drill.fires("RestoreTestUnproved")
    drill.ends("RestoreTestFailed", "RtoExceeded", "RpoExceeded")
    drill.restore_test("verified")
    drill.ends("RestoreTestUnproved")


def test_wal_that_waits(drill: Drill) -> None:
    drill.archive_by("/bin/false")
    drill.switch(1)
    drill.fires("BackupArchiveStuck")
    drill.archive_by("")
    drill.ends("BackupArchiveStuck")


def test_a_server_that_is_another_cluster(drill: Drill) -> None:
    service, path = f"postgresql@17-{STANZA}", drill.pg_path()
    drill.root(f"systemctl stop {service} && mv {path} {path}.kept && install -d -m 700 -o postgres {path}")
    drill.host.run(f"/usr/lib/postgresql/17/bin/initdb -D {path} -N > /dev/null")
    drill.fires("BackupStanzaMismatch")
    drill.root(f"rm -r {path} && mv {path}.kept {path} && systemctl start {service}")
    drill.ends("BackupStanzaMismatch")


def test_a_promotion(drill: Drill) -> None:
    service, path = f"postgresql@17-{STANZA}", drill.pg_path()
    drill.root(f"systemctl stop {service} && touch {path}/standby.signal && chown postgres {path}/standby.signal")
    drill.root(f"systemctl start {service}")
    drill.sql("SELECT pg_promote()")
    drill.sql("CHECKPOINT")  # until then pg_control has the old timeline
    drill.fires("BackupMissingAfterPromotion")


def test_backups_that_do_not_come_and_do_not_go(drill: Drill) -> None:
    drill.fires("BackupMissed", "BackupExpireRefused", "RestoreTestSilent")
    drill.restore_test("verified")
    drill.ends("RestoreTestSilent")
    drill.timers("start")
    drill.backup("full")  # the next would come within half a minute
    drill.backup("full")
    drill.ends("BackupTimerStopped", "BackupMissed", "BackupExpireRefused", "BackupMissingAfterPromotion")
    drill.timers("stop")


def test_a_backup_that_stands_still(drill: Drill) -> None:
    drill.root(f"systemctl start --no-block dbre-backup-{STANZA}-full.service")
    # Stopped before it has the lock it would stand still unseen.
    held = f'grep -q ":$(stat -c %i /tmp/pgbackrest/{STANZA}-backup-1.lock) " /proc/locks'
    drill.root(f"for i in $(seq 3000); do {held} && pkill -STOP -f '[p]gbackrest.* backup$' && exit 0; done; exit 1")
    drill.fires("BackupStuck")
    drill.root("pkill -CONT -f '[p]gbackrest.* backup$'")
    drill.ends("BackupStuck")


def test_a_run_that_is_killed_and_one_that_fails(drill: Drill) -> None:
    drill.root(f"systemctl start --no-block dbre-backup-{STANZA}-full.service; sleep 0.5")
    drill.root(f"systemctl kill -s KILL dbre-backup-{STANZA}-full.service")
    drill.fires("BackupTimerFailed")
    drill.root(f"mv {REPO2} {REPO2}.away")
    drill.backup("full", check=False)
    drill.fires("BackupFailed", "BackupRepositoryUnreadable")
    drill.ends("BackupTimerFailed")  # the run says itself why it failed
    drill.root(f"mv {REPO2}.away {REPO2}")
    drill.backup("full")
    drill.ends("BackupFailed", "BackupRepositoryUnreadable")


def test_a_repository_that_never_had_a_backup(drill: Drill) -> None:
    words = f"pgbackrest --stanza={STANZA} --log-level-console=warn"
    drill.host.run(f"{words} stop && {words} --repo=2 --force stanza-delete && {words} start && {words} stanza-create")
    drill.fires("BackupNever", "BackupCheckBlind")
    drill.backup("full")
    drill.ends("BackupNever", "BackupCheckBlind")


def test_a_cluster_that_has_twice_its_size(drill: Drill) -> None:
    drill.sql("CREATE TABLE big AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 60000) n")
    drill.backup("full")
    drill.fires("BackupSizeAnomaly")
    drill.sql("DROP TABLE big", "CHECKPOINT")
    drill.backup("full")
    drill.backup("full")  # two are kept: until now the usual size is between that of both
    drill.ends("BackupSizeAnomaly")


def test_damaged_pages_are_no_failed_run(drill: Drill) -> None:
    drill.sql("CREATE TABLE torn AS SELECT n FROM generate_series(1, 1000) n", "CHECKPOINT")
    file = drill.sql("SELECT pg_relation_filepath('torn')")
    drill.host.run(f"printf rubbish | dd of={drill.pg_path()}/{file} bs=1 seek=8300 conv=notrunc status=none")
    drill.backup("incr", check=False)
    drill.fires("BackupChainDirty")
    assert not {"BackupFailed", "BackupTimerFailed"} & set(drill.firing())
    drill.sql("DROP TABLE torn", "CHECKPOINT")
    drill.backup("full")
    drill.ends("BackupChainDirty")


def test_wal_that_is_gone(drill: Drill) -> None:
    drill.switch(4)
    drill.archived()
    # Between others in one repository; the newest in the other, which is then behind.
    drill.root(f"rm {drill.segments(REPO1)[-2]} {' '.join(drill.segments(REPO2)[-3:])}")
    drill.fires("BackupRepositoryBehind", "BackupArchiveLost", "BackupArchiveDropped")
    drill.backup("full", check=False)  # it says that WAL was missing since the one before
    drill.ends("BackupArchiveLost", "BackupArchiveDropped", "BackupRepositoryBehind")


def test_wal_that_a_command_only_says_it_archived(drill: Drill) -> None:
    drill.archive_by("/bin/true")
    drill.switch(2)
    drill.fires("BackupArchiveDropped")
    drill.archive_by("")
    drill.backup("full", check=False)
    drill.ends("BackupArchiveDropped", "BackupArchiveLost")


def test_a_window_that_is_cut_short(drill: Drill) -> None:
    drill.host.run(f"pgbackrest --stanza={STANZA} --repo=2 --type=full --repo2-retention-full=1 backup")
    drill.fires("BackupWindowShort")
    drill.ends("BackupWindowShort")


def test_a_repository_that_is_left_out(drill: Drill) -> None:
    time.sleep(20)
    words = f"pgbackrest --stanza={STANZA} --repo=1 --no-expire-auto"

    def behind() -> bool:
        drill.host.run(f"{words} --type=full backup")
        return "BackupRepositoryBehind" in drill.firing()

    drill.wait("BackupRepositoryBehind does not fire", behind)
    drill.fires("BackupRepositoryBehind")
    drill.backup("full")
    drill.ends("BackupRepositoryBehind")


def test_a_disk_that_fills(drill: Drill) -> None:
    name = "/dev/shm/drill"
    for _turn in range(9):
        drill.root(f"head -c 105M /dev/zero >> {name}; sleep 0.7")
        if "BackupRepositoryFilling" in drill.firing():
            break
    drill.fires("BackupRepositoryFilling")
    drill.root(f"rm {name}")
    drill.ends("BackupRepositoryFilling")


def test_a_collector_that_sees_nothing_stops_or_vanishes(drill: Drill) -> None:
    program = "/usr/bin/pgbackrest"
    drill.root(f"mv {program} {program}.away")
    drill.fires("BackupCollectorFailed")
    drill.root(f"mv {program}.away {program}")
    drill.ends("BackupCollectorFailed")
    unit = f"dbre-metrics-{STANZA}"
    drill.root(f"systemctl stop {unit}.timer")
    drill.fires("BackupCollectorStale")
    drill.root(f"systemctl stop {unit}.service; rm {STATE}/metrics/dbre_backup_{STANZA}.prom")
    drill.fires("BackupStanzaVanished")
    drill.root(f"systemctl start {unit}.timer")
    drill.ends("BackupCollectorStale", "BackupStanzaVanished")


def test_every_alert_was_told_of(drill: Drill) -> None:
    rules = yaml.safe_load(drill.root(f"cat {DRILL}"))["groups"][0]["rules"]
    of_rds = {"BackupArchiveLagging"}
    assert drill.fired == {rule["alert"] for rule in rules if "alert" in rule} - of_rds


@pytest.mark.parametrize("name", ["fleet", "stanza"])
def test_every_panel_of_a_dashboard_has_data(drill: Drill, name: str) -> None:
    drill.restore_test("verified")
    dashboard = ROOT / "roles" / "backup_monitoring" / "files" / f"dbre-backup-{name}.json"
    panels = json.loads(dashboard.read_text())["panels"]
    queries = {
        target["expr"].replace("$stanza", STANZA): panel["title"]
        for panel in panels
        for target in panel.get("targets", [])
    }
    assert len(queries) > 10
    drill.wait(
        "the restore test is not seen", lambda: bool(drill.ask('dbre_restore_test_verdict{verdict="verified"} == 1'))
    )
    assert {title for query, title in queries.items() if not drill.ask(query)} == set()


def test_every_metric_of_the_page_was_scraped_and_no_other(drill: Drill) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `((?:dbre|pgbackrest)_\w+)` \|", page, re.MULTILINE))
    with urllib.request.urlopen(f"{drill.prometheus}/label/__name__/values") as answer:
        seen = {name for name in json.load(answer)["data"] if name.startswith(("dbre_", "pgbackrest_"))}
    assert seen == documented
