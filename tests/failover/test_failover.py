"""What an application and an operator see of dr-primary-failure, on real hosts: a primary, two standbys, a repository.

The hosts come from an Ansible inventory named by DBRE_INVENTORY, the groups from that of the scenario, DBRE_GROUPS.
One failover is told in one test after the other, in this order: each costs the hosts a primary.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from hosts import Host, hosts_of  # found by the line above
from runs import Run, run, run_killed_in

HERE = pathlib.Path(__file__).parent
PORT, MAJOR, CLUSTER = 6930, 17, "failover"
DATA = f"/var/lib/postgresql/{MAJOR}/{CLUSTER}"
CONFIG = f"/etc/pgbackrest-{CLUSTER}.conf"
FOLDER = "/var/tmp/failover-clients"
PLAYBOOK = os.environ.get("DBRE_PLAYBOOK", "dbre.recovery.dr_primary_failure")


BOUNCER = "/var/tmp/failover-pgbouncer"
NAMES = "/var/tmp/failover-names"
REPORTS = "/var/tmp/failover-reports"
UNIT = f"postgresql@{MAJOR}-{CLUSTER}"
KEY = base64.b64encode(b"of the tests").decode()
NAMED = """
options {{
  directory "{folder}"; pid-file "{folder}/pid"; session-keyfile "{folder}/session.key";
  listen-on port 5300 {{ any; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no;
}};
controls {{ }};
key "failover" {{ algorithm hmac-sha256; secret "{key}"; }};
zone "shop.test" {{ type primary; file "{folder}/shop.test"; allow-update {{ key failover; }}; }};
"""
ZONE = """$TTL 60
@ SOA ns hostmaster 1 60 60 60 60
@ NS ns
ns A 127.0.0.1
db A {address}
"""


class Lab:
    """The hosts by their names, and the playbook run against them."""

    def __init__(self, folder: pathlib.Path) -> None:
        hosts = hosts_of(os.environ["DBRE_INVENTORY"])
        self.old, self.new, self.other, self.clients = (hosts[f"deb13{letter}"] for letter in "dfge")
        self.reports = folder / "incidents"
        self.inventories = [os.environ[name] for name in ("DBRE_INVENTORY", "DBRE_GROUPS")]
        self.unreachable = folder / "unreachable.json"

    @staticmethod
    def sql(host: Host, statements: str) -> str:
        return host.run(f"psql -X -q -A -t -v ON_ERROR_STOP=1 -p {PORT} -f -", stdin=statements).strip()

    def answer(self, host: Host, statement: str) -> str:
        """As sql(), empty where no server answers."""
        return host.run(f"psql -X -q -A -t -p {PORT} -c {shlex.quote(statement)}", check=False).strip()

    def answers(self, host: Host, statement: str = "SELECT 1") -> bool:
        """Whether a server answers with 1."""
        return self.answer(host, statement) == "1"

    def roles(self) -> list[Host]:
        """The primary, and those that stand by."""
        servers = [self.old, self.new, self.other]
        (primary,) = [host for host in servers if self.answer(host, "SELECT pg_is_in_recovery()") == "f"]
        return [primary, *(host for host in servers if self.answer(host, "SELECT pg_is_in_recovery()") == "t")]

    def command(self, *extra: str, **variables: Any) -> list[str]:
        given = {"dr_report_dir": str(self.reports), "dr_confirm": True, "dr_salvage_timeout": 60, **variables}
        inventories = [f"--inventory={path}" for path in self.inventories]
        return ["ansible-playbook", *inventories, PLAYBOOK, "-e", json.dumps(given), *extra]

    def cut_off(self, host: Host) -> None:
        """Let the controller not reach a host, as when its power has failed."""
        self.unreachable.write_text(json.dumps({"all": {"hosts": {host.name: {"ansible_port": 1}}}}))
        self.inventories.append(str(self.unreachable))

    def reach_again(self) -> None:
        self.inventories.remove(str(self.unreachable))

    def fail_over(self, *extra: str, **variables: Any) -> Run:
        done = run(self.command(*extra, **variables))
        with (self.reports.parent / f"{variables['dr_incident_id']}.txt").open("a") as file:
            file.write(done.output)
        return done

    def killed_in(self, phase: str, seconds: float, **variables: Any) -> None:
        events = self.reports / str(variables["dr_incident_id"]) / "events.jsonl"
        run_killed_in(self.command(**variables), events, phase, seconds)

    def report(self, incident: str) -> dict[str, Any]:
        return dict(json.loads((self.reports / incident / "report.json").read_text()))

    def evidence(self, incident: str, subject: str) -> dict[str, Any]:
        return dict(json.loads((self.reports / incident / "evidence" / f"{subject}.json").read_text()))

    def start_bouncer(self) -> None:
        """A PgBouncer that leads to the old primary, and whose clients stay connected to it."""
        address = self.old.variables["ansible_host"]
        self.clients.run(
            f"rm -rf {BOUNCER} && mkdir {BOUNCER} && cat > {BOUNCER}/pgbouncer.ini"
            f" && /usr/sbin/pgbouncer -q -d {BOUNCER}/pgbouncer.ini",
            stdin=f"[databases]\npostgres = host={address} port={PORT} user=app\n"
            f"[pgbouncer]\nlisten_addr = *\nlisten_port = 6933\nunix_socket_dir = {BOUNCER}\npool_mode = transaction\n"
            f"auth_type = any\nlogfile = {BOUNCER}/log\npidfile = {BOUNCER}/pid\nserver_connect_timeout = 2\n",
        )

    def start_names(self) -> None:
        """A BIND that knows the primary as db.shop.test, and takes updates that are signed."""
        address = self.old.variables["ansible_host"]
        self.clients.run(
            f"rm -rf {NAMES} && mkdir {NAMES} && cat > {NAMES}/named.conf", stdin=NAMED.format(folder=NAMES, key=KEY)
        )
        self.clients.run(f"cat > {NAMES}/shop.test", stdin=ZONE.format(address=address))
        self.clients.run(f"/usr/sbin/named -c {NAMES}/named.conf")

    def name_leads_to(self) -> str:
        return self.clients.run("dig +short -p 5300 @127.0.0.1 db.shop.test").strip()

    def names(self, secret: str) -> dict[str, Any]:
        """What leads the name to the new primary, by a key."""
        records = [{"zone": "shop.test", "record": "db"}]
        server = {"server": self.clients.variables["ansible_host"], "port": 5300}
        return {"postgresql_failover_dns": {**server, "key_name": "failover", "key_secret": secret, "records": records}}

    def start_clients(self) -> None:
        """Two that know all servers, and two that come through PgBouncer."""
        addresses = ",".join(str(host.variables["ansible_host"]) for host in (self.old, self.new, self.other))
        direct = (
            f"host={addresses} port={PORT} dbname=postgres user=app target_session_attrs=read-write"
            " connect_timeout=2 tcp_user_timeout=2000"
        )
        pooled = f"host={BOUNCER} port=6933 dbname=postgres user=app"
        self.clients.run(f"rm -rf {FOLDER} && mkdir {FOLDER} && cat > {FOLDER}/clients.py", stdin=CLIENTS)
        for conninfo, first in ((direct, 1), (pooled, 3)):
            self.clients.run(
                f"nohup python3 {FOLDER}/clients.py '{conninfo}' {FOLDER} 2 {first} > {FOLDER}/out 2>&1 < /dev/null &"
            )

    def stop_clients(self) -> None:
        self.clients.run(f"touch {FOLDER}/stop; pkill -f {FOLDER}/[c]lients.py; true", check=False)

    def told(self, clients: str = "[1-4]") -> dict[int, float]:
        """Numbers whose commit a client was told of, and when."""
        lines = self.clients.run(f"cat {FOLDER}/client{clients}.log 2>/dev/null || true").splitlines()
        return {int(number): float(when) for number, when in (line.split() for line in lines if " " in line)}

    def there(self, host: Host) -> set[int]:
        return set(map(int, self.sql(host, "SELECT n FROM told").split()))

    def outage(self, clients: str) -> float:
        """The longest time in which none of these clients was told of a commit."""
        moments = sorted(self.told(clients).values())
        return max(after - before for before, after in zip(moments, moments[1:]))

    def note_outages(self, record_property: Callable[[str, object], None]) -> None:
        """Into the JUnit report, for docs/failover.md."""
        for name, clients in (("through PgBouncer", "[34]"), ("direct", "[12]")):
            record_property(f"seconds without a commit, {name}", round(self.outage(clients), 1))

    def wait_until_told(self, more: int, clients: str = "[1-4]") -> None:
        goal = len(self.told(clients)) + more
        deadline = time.monotonic() + 30
        while len(self.told(clients)) < goal:
            assert time.monotonic() < deadline, self.clients.run(f"cat {FOLDER}/out {BOUNCER}/log | tail -20")
            time.sleep(0.2)

    def archived(self, timeline: str) -> set[str]:
        """Segments of a timeline in the repository."""
        found = self.clients.run(f"find /var/lib/pgbackrest-{CLUSTER}/archive -name '{timeline}*-*' -printf '%f\\n'")
        return {name.split("-")[0] for name in found.split() if ".partial" not in name and ".history" not in name}

    def followers(self, host: Host) -> str:
        return self.sql(
            host, "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_replication"
        )


CLIENTS = (HERE.parent / "e2e" / "acknowledged.py").read_text()
# From here on nothing leaves the primary; it goes on for a second, and is gone.
DIE = f"""
pid=$(head -1 {DATA}/postmaster.pid)
kill -STOP $(pgrep -P $pid -f 'walsender|archiver')
date +%s.%N
sleep 1
kill -KILL $pid $(pgrep -P $pid)
"""
# What another server under the same stanza would have archived.
FOREIGN = f"""
set -e
cd {DATA}/pg_wal
printf '1\\t0/2000000\\tno recovery target specified\\n' > 00000002.history
pgbackrest --config={CONFIG} --stanza={CLUSTER} --no-archive-async archive-push $PWD/00000002.history
rm 00000002.history
"""


class Inside:
    """A host by the namespaces of its first process on this machine: reached also where its network is cut."""

    def __init__(self, host: Host) -> None:
        address = host.variables["ansible_host"]
        for pid in subprocess.run(
            ["pgrep", "-f", "^/sbin/init"], capture_output=True, text=True, check=True
        ).stdout.split():
            self.pid = pid
            if address in self.run("-n", "hostname", "-I").split():
                return
        raise AssertionError(f"no process of {host.name} on this machine")

    def run(self, *words: str) -> str:
        command = ["nsenter", "--target", self.pid, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def sql(self, statement: str) -> str:
        psql = f"psql -X -q -A -t -p {PORT} -c {shlex.quote(statement)}"
        return self.run(
            "-m", "-u", "-i", "-n", "-p", "runuser", "-u", "postgres", "--", "sh", "-c", f"cd /; {psql}"
        ).strip()

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """No packet comes in or goes out; who is inside notices nothing."""
        default = self.run("-n", "ip", "route", "show", "default").split()
        self.run("-n", "ip", "link", "set", "eth0", "down")
        try:
            yield
        finally:
            self.run("-n", "ip", "link", "set", "eth0", "up")
            self.run("-n", "ip", "route", "replace", *default)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("failover"))
    made.start_bouncer()
    made.start_names()
    yield made
    made.stop_clients()
    made.clients.run(f"kill $(cat {BOUNCER}/pid); kill $(cat {NAMES}/pid)", check=False)


def test_beside_a_primary_that_lives_nothing_is_promoted(lab: Lab) -> None:
    said = lab.fail_over("--check", dr_incident_id="living")
    assert said.rc != 0
    assert "runs, answers, and takes writes on timeline 1: nothing is promoted beside it" in said.output
    assert not (lab.reports / "living").exists()


def test_a_primary_that_the_network_is_cut_off_from_is_not_replaced_and_goes_on(lab: Lab) -> None:
    """Whoever is on its side of the cut goes on writing, and nobody on the other side can know."""
    lab.sql(lab.old, "CREATE TABLE written (side text)")
    inside = Inside(lab.old)
    with inside.cut_off():
        inside.sql("INSERT INTO written VALUES ('inside')")
        began = time.monotonic()
        refused = lab.fail_over(dr_incident_id="cut")
        assert refused.rc != 0
        assert "dr_fenced=yes" in refused.output, refused.output
        assert time.monotonic() - began < 120
        inside.sql("INSERT INTO written VALUES ('inside still')")
        for standby in (lab.new, lab.other):
            assert lab.sql(standby, "SELECT pg_is_in_recovery(), count(*) FROM written") == "t|0"
    deadline = time.monotonic() + 60
    for standby in (lab.new, lab.other):
        while lab.sql(standby, "SELECT count(*) FROM written") != "2":
            assert time.monotonic() < deadline, "it does not follow again"
            time.sleep(0.5)
    assert "nothing is promoted beside it" in lab.fail_over("--check", dr_incident_id="cut").output
    assert lab.followers(lab.old) == "dbre_deb13f dbre_deb13g"


def test_every_acknowledged_commit_is_there_after_the_power_failed_and_runs_were_killed(lab: Lab) -> None:
    lab.start_clients()
    lab.wait_until_told(100)
    lab.wait_until_told(20, "3")
    alone = float(lab.old.run(DIE))
    only_there = [number for number, when in lab.told().items() if when > alone]
    assert len(only_there) > 20
    assert not set(only_there) & lab.there(lab.new)

    lab.old.run(FOREIGN)
    foreign = lab.fail_over("--check", dr_incident_id="dead")
    assert foreign.rc != 0
    assert "the archive has 00000002.history, of a timeline that left this cluster's WAL at 0/2000000" in foreign.output
    lab.clients.run(f"rm /var/lib/pgbackrest-{CLUSTER}/archive/{CLUSTER}/{MAJOR}-1/00000002.history*")

    for phase, seconds in (("locate", 1.5), ("recover", 0.5)):
        lab.killed_in(phase, seconds, dr_incident_id="dead")
    wrong = base64.b64encode(b"of others").decode()
    half = lab.fail_over(dr_incident_id="dead", **lab.names(wrong))
    assert half.rc != 0
    assert "Not led to the new primary: db: " in " ".join(half.output.split())
    assert "deb13f is the primary, takes writes, and is followed." in " ".join(half.output.split())
    assert wrong not in half.output
    write = f"psql -X -d 'host={lab.clients.variables['ansible_host']} port=6933 dbname=postgres user=app' -c"
    check = f"{write} 'INSERT INTO told VALUES (0)'"
    done = lab.fail_over(dr_incident_id="dead", dr_check_command=check, **lab.names(KEY))

    assert done.rc == 0, done.output
    assert lab.name_leads_to() == lab.new.variables["ansible_host"]
    lab.wait_until_told(20, "[12]")
    lab.wait_until_told(20, "[34]")
    assert (set(lab.told()) | {0}) - lab.there(lab.new) == set()
    located = lab.evidence("dead", "located")
    assert (located["candidate"], located["salvaged"]["taken"]) == ("deb13f", {"deb13d": 1})
    report = lab.report("dead")
    assert (report["verdict"], report["rpo"]["transactions"]) == ("proved", 0)
    # The old primary has nothing of its own any more, so that it is a standby as it was.
    assert lab.evidence("dead", "last_words")["way"] == "rejoin"
    assert lab.followers(lab.new) == "dbre_deb13d dbre_deb13g"
    assert lab.old.run(f"systemctl is-enabled {UNIT}").strip() == "enabled"


def test_done_once_it_is_not_done_again(lab: Lab) -> None:
    again = lab.fail_over(dr_incident_id="dead")
    assert (again.rc, again.changed) == (0, 0), again.output
    other = lab.fail_over("--check", dr_incident_id="once-more")
    assert other.rc != 0
    assert re.search(r"deb13f \(timeline \d\) is the primary already; there is nothing to promote", other.output)


def test_an_old_primary_that_comes_back_by_itself_in_the_middle_is_not_listened_to(lab: Lab) -> None:
    """Its host has lost its power, with commits that nobody else has, and comes back when another is promoted."""
    lab.stop_clients()
    alone = lab.new.run(f"kill -STOP $(pgrep -P $(head -1 {DATA}/postmaster.pid) -f 'walsender|archiver'); date +%s.%N")
    assert alone
    lab.sql(lab.new, "INSERT INTO told SELECT -generate_series(1, 5)")
    lab.sql(lab.new, "DELETE FROM told WHERE n BETWEEN 10000001 AND 10000010")
    lab.new.run(f"pid=$(head -1 {DATA}/postmaster.pid); kill -KILL $pid $(pgrep -P $pid)")
    lab.cut_off(lab.new)
    given = {"dr_primary": "deb13f", "dr_standby_group": "standbys_of_deb13f", "dr_incident_id": "back"}

    unreachable = lab.fail_over("--check", **given)
    assert unreachable.rc != 0
    assert "dr_fenced=yes" in unreachable.output
    assert "dr_accept_loss=yes" in unreachable.output
    lab.killed_in("repoint", 0.5, dr_fenced=True, dr_accept_loss=True, **given)
    lab.reach_again()
    lab.new.run(f"systemctl start {UNIT}", user="root")
    wait_for_server(lab.new)
    assert lab.sql(lab.new, "SELECT pg_is_in_recovery()") == "f"
    lab.sql(lab.new, "INSERT INTO told VALUES (-6)")
    archived = lab.archived("00000002")
    done = lab.fail_over(dr_fenced=True, dr_accept_loss=True, **given)

    assert done.rc == 2, done.output
    # A server that is shut down in order archives a last segment, beside what the new primary archives by now.
    fork = int(lab.evidence("back", "promoted")["fork_lsn"].split("/")[1], 16) >> 24
    own = {name for name in lab.archived("00000002") - archived if int(name[-8:], 16) >= fork}
    assert own == set()
    assert "Recovered in part: missing 3 transactions that only deb13f had" in done.output
    words = lab.evidence("back", "last_words")
    assert words["way"] == "restore"
    rows = [transaction["rows"] for transaction in words["own"]["transactions"]]
    assert [(row["insert"], row["delete"]) for row in rows] == [(5, 0), (0, 10), (1, 0)]
    (kept,) = words["own"]["rows"]
    lines = lab.new.run(f"cat {words['kept']}/rows/{kept['file']}").split()
    assert (kept["table"], sorted(map(int, lines[1:]))) == ("told", [-6, -5, -4, -3, -2, -1])
    assert lab.followers(lab.old) == "dbre_deb13f dbre_deb13g"
    assert lab.sql(lab.new, "SELECT pg_is_in_recovery(), count(*) FROM told WHERE n < 0") == "t|0"


def test_two_servers_exchange_their_places_under_load_and_nothing_is_lost(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    lab.sql(lab.old, "DELETE FROM told")
    lab.start_clients()
    lab.wait_until_told(50, "[34]")
    done = lab.fail_over(dr_incident_id="switch", dr_switchover=True)
    assert done.rc == 0, done.output
    lab.wait_until_told(20, "[12]")
    lab.wait_until_told(20, "[34]")
    lab.stop_clients()
    assert set(lab.told()) - lab.there(lab.new) == set()
    # Whoever comes through PgBouncer waits, and sees no error; the others connect again.
    assert lab.clients.run(f"cat {FOLDER}/client[34].errors 2>/dev/null || true") == ""
    lab.note_outages(record_property)
    assert lab.outage("[34]") < 60
    assert lab.evidence("switch", "located")["clean"]
    assert lab.evidence("switch", "last_words")["way"] == "rejoin"
    assert lab.followers(lab.new) == "dbre_deb13d dbre_deb13g"


def test_after_a_power_failure_one_run_leads_clients_to_another(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    lab.sql(lab.new, "DELETE FROM told")
    lab.start_clients()
    lab.wait_until_told(50, "[34]")
    lab.new.run(f"pid=$(head -1 {DATA}/postmaster.pid); kill -KILL $pid $(pgrep -P $pid)")
    given = {"dr_primary": "deb13f", "dr_standby_group": "standbys_of_deb13f", "dr_incident_id": "again"}
    done = lab.fail_over(**given)
    assert done.rc == 0, done.output
    lab.wait_until_told(20, "[12]")
    lab.wait_until_told(20, "[34]")
    lab.stop_clients()
    lab.note_outages(record_property)
    new = lab.old if lab.evidence("again", "located")["candidate"] == "deb13d" else lab.other
    assert set(lab.told()) - lab.there(new) == set()
    assert len(lab.followers(new).split()) == 2


def test_killed_in_each_phase_no_commit_that_a_synchronous_standby_confirmed_is_lost(lab: Lab) -> None:
    primary, *standbys = lab.roles()
    names = "ANY 1 (" + ", ".join(f'"{name}"' for name in lab.followers(primary).split()) + ")"
    lab.sql(primary, f"DELETE FROM told; ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    lab.sql(primary, "SELECT pg_reload_conf()")
    lab.start_clients()
    lab.wait_until_told(50, "[12]")
    lab.wait_until_told(50, "[34]")
    primary.run(f"pid=$(head -1 {DATA}/postmaster.pid); kill -KILL $pid $(pgrep -P $pid)")
    groups = {"followers_now": {"hosts": {host.name: {} for host in standbys}}}
    inventory = lab.reports.parent / "followers.json"
    inventory.write_text(json.dumps({"all": {"children": groups}}))
    lab.inventories.append(str(inventory))
    given = {"dr_primary": primary.name, "dr_standby_group": "followers_now", "dr_incident_id": "killed"}
    for phase in ("plan", "contain", "locate", "recover", "repoint", "verify", "rebuild", "report"):
        lab.killed_in(phase, 0.4, **given)
    done = lab.fail_over(**given)
    lab.inventories.remove(str(inventory))
    assert done.rc == 0, done.output
    lab.wait_until_told(20, "[12]")
    lab.wait_until_told(20, "[34]")
    lab.stop_clients()
    new, *_others = lab.roles()
    assert new is not primary
    assert set(lab.told()) - lab.there(new) == set()
    assert lab.report("killed")["verdict"] == "proved"
    assert len(lab.followers(new).split()) == 2
    for host in (lab.old, lab.new, lab.other):
        lab.sql(host, "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")


def test_a_subscriber_goes_on_with_the_new_primary_from_where_it_was(lab: Lab, subscriber: str) -> None:
    for host in (lab.old, lab.new, lab.other):
        lab.sql(host, "ALTER SYSTEM SET wal_level = logical; ALTER SYSTEM SET hot_standby_feedback = on")
        lab.sql(host, "ALTER SYSTEM SET sync_replication_slots = on")
        host.run(f"systemctl restart {UNIT}", user="root")
    for host in (lab.old, lab.new, lab.other):
        wait_until(partial(lab.answers, host), f"{host.name} answers")
    primary, *standbys = lab.roles()
    lab.sql(primary, "CREATE TABLE sold (n int PRIMARY KEY); GRANT SELECT ON sold TO app; ALTER ROLE app REPLICATION")
    lab.sql(primary, "CREATE PUBLICATION shop FOR TABLE sold; INSERT INTO sold VALUES (1)")
    conninfo = f"host={primary.variables['ansible_host']} port={PORT} dbname=postgres user=app"
    lab.clients.run(
        f"{subscriber} -c 'CREATE TABLE sold (n int PRIMARY KEY)'"
        f" -c \"CREATE SUBSCRIPTION shop CONNECTION '{conninfo}' PUBLICATION shop WITH (failover)\""
    )
    synced = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'shop' AND synced AND NOT temporary"
    for number, host in enumerate(standbys, 10):
        wait_until(partial(lab.answers, host, synced), f"{host.name} has its slot")
        lab.sql(primary, f"INSERT INTO sold VALUES ({number})")
    sold = f"{subscriber} -c 'SELECT array_agg(n ORDER BY n) FROM sold'"
    wait_until(lambda: lab.clients.run(sold).strip() == "{1,10,11}", "it has all")
    primary.run(f"pid=$(head -1 {DATA}/postmaster.pid); kill -KILL $pid $(pgrep -P $pid)")
    groups = {
        "followers_now": {"hosts": {host.name: {} for host in standbys}},
        "subscriber": {"hosts": {lab.clients.name: {"postgresql_port": 6935, "postgresql_socket_dir": REPORTS}}},
    }
    inventory = lab.reports.parent / "subscriber.json"
    inventory.write_text(json.dumps({"all": {"children": groups}}))
    lab.inventories.append(str(inventory))
    given = {"dr_primary": primary.name, "dr_standby_group": "followers_now", "dr_incident_id": "subscribed"}
    done = lab.fail_over(**given)
    lab.inventories.remove(str(inventory))
    assert done.rc == 0, done.output
    new, *_others = lab.roles()
    lab.sql(new, "INSERT INTO sold VALUES (100)")
    wait_until(lambda: lab.clients.run(sold).strip() == "{1,10,11,100}", "it goes on")
    (led,) = json.loads((lab.reports / "subscribed" / "evidence" / "subscribed.json").read_text())
    assert (led["host"], led["name"], led["left"]) == (lab.clients.name, "shop", "")
    report = lab.report("subscribed")
    assert report["verdict"] == "proved"
    assert "slot" not in str([one["what"] for one in report["left_to_do"]])


def test_an_expert_who_knows_everything_leads_clients_to_another_with_bare_commands(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    """What the run before is measured by: promote at once, RELOAD, nothing looked at, nothing salvaged, no fence."""
    primary, standby, *_others = lab.roles()
    lab.sql(primary, "DELETE FROM told")
    lab.start_clients()
    lab.wait_until_told(50, "[34]")
    primary.run(f"pid=$(head -1 {DATA}/postmaster.pid); kill -KILL $pid $(pgrep -P $pid)")
    standby.run(f"pg_ctlcluster {MAJOR} {CLUSTER} promote")
    address = standby.variables["ansible_host"]
    lab.clients.run(
        f"sed -i 's/host *= *[^ ]*/host={address}/' {BOUNCER}/pgbouncer.ini; "
        f"psql -X -h {BOUNCER} -p 6933 -U pgbouncer pgbouncer -c RELOAD -c RECONNECT -c 'SET server_login_retry = 0'"
    )
    lab.wait_until_told(20, "[12]")
    lab.wait_until_told(20, "[34]")
    lab.stop_clients()
    lab.note_outages(record_property)


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline, f"not within 90 s: {what}"
        time.sleep(0.5)


@pytest.fixture
def subscriber(lab: Lab) -> Iterator[str]:
    """A server of its own, beside the repository; psql there."""
    binaries = f"/usr/lib/postgresql/{MAJOR}/bin"
    lab.clients.run(
        f"rm -rf {REPORTS} && mkdir {REPORTS} && {binaries}/initdb -N -A trust -D {REPORTS}/data > /dev/null"
        f" && {binaries}/pg_ctl start -w -s -D {REPORTS}/data -l {REPORTS}/log"
        f" -o '-p 6935 -k {REPORTS} -c listen_addresses=' > /dev/null 2>&1"
    )
    yield f"psql -X -q -A -t -v ON_ERROR_STOP=1 -h {REPORTS} -p 6935 postgres"
    lab.clients.run(f"{binaries}/pg_ctl stop -m immediate -s -D {REPORTS}/data; rm -rf {REPORTS}", check=False)


def wait_for_server(host: Host) -> None:
    deadline = time.monotonic() + 60
    while "f" not in host.run(f"psql -X -A -t -p {PORT} -c 'SELECT pg_is_in_recovery()'", check=False):
        assert time.monotonic() < deadline, "it does not come back"
        time.sleep(0.5)
