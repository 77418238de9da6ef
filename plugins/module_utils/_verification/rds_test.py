# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore test of a database on RDS or Aurora, from beginning to end; the source is only read.

RDS gives no position in WAL. To compare with production, its rows are read before a second and after it, and the copy
is restored to that second: a table that was the same both times must be that in the copy, too.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, ClientError, kind_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.login import Asked as AskedLogin
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.login import find_login
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import endpoint_of, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import STUCK
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import Regions, with_members
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import (
    Window,
    cluster_windows,
    instance_windows,
    refuse_outside,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.attempt import Attempt, Found, Subject, said
from ansible_collections.dbre.recovery.plugins.module_utils._verification.by_sql import BySql
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import asserted_in, check_assertions
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, conclude, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import KEPT, LATEST, RANDOM
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_copy import (
    REMOVAL,
    Bounded,
    Copy,
    cost,
    expiry,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.rds_data import (
    Prints,
    against_production,
    equal_to_kept,
    kept_prints,
    moved_since,
    newest_kept,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.snapshot import fingerprints_of, reading

# Statuses of a restore that AWS gave up, which says that there is no way back from these backups to that moment.
RESTORE_FAILED = ("failed", "incompatible-restore", "restore-error")
CLOSED = {"rdsadmin": "it is AWS's own, and lets nobody in", "template0": "it lets nobody in"}
LOGIN_TRIES = 6
ISOLATION = """
SELECT current_setting('max_logical_replication_workers') AS max_logical_replication_workers,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type LIKE 'logical replication%')::text
         AS subscription_workers,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type ILIKE '%cron%')::text AS cron_jobs
"""


@dataclass(frozen=True)
class RdsRequest:
    """What is to be tested. ``login`` is production's, asked only where ``compare`` names databases."""

    directory: str
    host: str
    db_instance_identifier: Optional[str] = None
    db_cluster_identifier: Optional[str] = None
    tier: Optional[str] = None
    policy: Optional[Mapping[str, Any]] = None
    point: str = LATEST
    seed: str = ""
    ignore: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 14400
    signing_key: Optional[str] = None
    compare: Sequence[str] = ()
    assertions: Sequence[Mapping[str, Any]] = ()
    password_secret: Optional[str] = None
    progress_file: Optional[str] = None


def rds_findings(error: Exception) -> list[Finding]:
    """The finding that an error of a restore on AWS is, and whether that says anything of the backups."""
    if not isinstance(error, RecoveryError):
        text = error_text(error) if isinstance(error, ClientError) else said(error)
        return [finding("AWS_REFUSED", 0, "restore", text)]
    details, status = error.details, error.details.get("status")
    code = "AWS_REFUSED"
    if details.get("code"):
        code = str(details["code"])
    elif status in RESTORE_FAILED:
        code = "RESTORE_FAILED"
    elif status and status not in STUCK:
        code = "TIMED_OUT"
    elif "windows" in details:
        code = "PITR_TARGET_UNREACHED" if details["windows"] else "BACKUP_MISSING"
    return [finding(code, 0, "restore", error.msg)]


class RdsRestoreTest(Attempt):
    """The test of one database. Nothing it does can fail without a verdict, but for its own history."""

    def __init__(
        self,
        request: RdsRequest,
        login: Login,
        rds: Rds,
        regions: Regions,
        secrets_in: Callable[[Optional[str]], Any],
    ) -> None:
        self.kind, name = kind_of(request.db_instance_identifier, request.db_cluster_identifier)
        super().__init__(
            Subject(
                name=name.lower(),
                what=f"{self.kind.noun} {name}",
                directory=request.directory,
                host=request.host,
                tier=request.tier,
                policy=request.policy,
                ignore=request.ignore,
                signing_key=request.signing_key,
            )
        )
        self.request = request
        self.login = login
        self.rds = rds
        self.secrets_in = secrets_in
        self.progress = Progress(request.progress_file)
        self.waiting = Bounded(request.timeout, self.progress, ends=time.monotonic() + request.timeout)
        self.copy = Copy(self.kind, name, rds, regions)
        self.assertions = check_assertions(request.assertions)
        self.side: Login = {}
        self.prints: Prints = {}
        self.facts.update(kind=self.kind.noun, region=rds.region)

    # The whole

    def test(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Restore, check, remove; the copy is removed whatever happens, on the signal to end too."""
        # A module runs in its process's main thread, alone.
        before = signal.signal(signal.SIGTERM, _end)
        cleared = False
        try:
            dead = [str(one["id"]) for one in earlier]
            self.facts["cleared"] = self.copy.clear(dead, self.waiting)
            cleared = True
            self._restore(earlier)
        except Exception as error:
            self.checks.append(conclude("restore", rds_findings(error), self.ignore))
        finally:
            if cleared:
                self.clean()
            signal.signal(signal.SIGTERM, before)

    def dry_run(self) -> dict[str, Any]:
        """What would be restored, and what it would cost; nothing is made or written."""
        try:
            shown, window = self.look()
            self.facts["target"] = self.target(window, None, [])
            self.estimate(shown, [])
            self.checks.append(conclude("restorable", [], self.ignore))
        except Exception as error:
            self.checks.append(conclude("restorable", rds_findings(error), self.ignore))
        self.omit("a restore", "check mode restores nothing")
        return self.report({"id": self.id, "began": datetime.now(timezone.utc).isoformat()})

    def report(self, attempt: Mapping[str, Any]) -> dict[str, Any]:
        """What report.json holds."""
        if not self.request.compare:
            self.omit("data against production's", "no database was named for it (backup_verification_compare)")
        self.omit("what would be lost (RPO)", "RDS shows no WAL; audit-policy judges how far the backups are behind")
        return super().report(attempt)

    # Steps

    def look(self) -> tuple[dict[str, Any], Window]:
        """What AWS shows of the source, and the window of its own automated backups."""
        shown = self.kind.require(self.rds, self.subject.name)
        windows = (cluster_windows if self.kind is CLUSTER else instance_windows)(self.rds, shown)
        own = [one for one in windows if one.resource_id == shown.get(self.kind.resource_id) and one.latest]
        if not own:
            raise RecoveryError(
                f"{self.subject.name} has no automated backups that a restore could begin from.", code="BACKUP_MISSING"
            )
        return (with_members(self.rds, shown) if self.kind is CLUSTER else dict(shown)), own[0]

    def target(
        self, window: Window, compared: Optional[datetime], earlier: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The moment that is restored, and why."""
        point, latest = self.request.point, window.latest or datetime.now(timezone.utc)
        at, reason = latest.replace(microsecond=0), "the latest moment that AWS could restore"
        if compared is not None:
            at, reason = compared, "the second between two readings of production"
        elif point == RANDOM:
            if window.earliest is None:
                raise RecoveryError(
                    f"AWS does not tell how far back the backups of {self.subject.name} reach, so that chance has "
                    "nothing to choose from. Nothing was restored. Give another point."
                )
            seed = self.request.seed or self.id
            first = window.earliest.replace(microsecond=0) + timedelta(seconds=1)
            span = max(int((at - first).total_seconds()), 0)
            reason = f"a moment that chance chose between {iso(first)} and {iso(at)}, seed {seed}"
            at = first + timedelta(seconds=random.Random(seed).randint(0, span))  # not for a secret
        elif point == KEPT:
            kept = kept_prints(self.request.directory, earlier, window)
            self.facts["kept"] = kept["id"]
            at, reason = parse_time(kept["time"], "time"), f"the oldest of which a test kept fingerprints, {kept['id']}"
        elif point != LATEST:
            at, reason = parse_time(point, "point").replace(microsecond=0), "it was asked for"
        if compared is None and not window.holds(at):
            early = window.earliest is not None and at < window.earliest
            try:
                refuse_outside(at, [window], self.subject.name)
            except RecoveryError as error:
                code = "PITR_TARGET_BEFORE_BACKUP" if early else "PITR_TARGET_UNREACHED"
                raise RecoveryError(error.msg, code=code) from error
        return {"type": "time", "value": str(iso(at)), "exclusive": False, "reason": reason}

    def estimate(self, shown: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> None:
        """Say what the copy costs, before there is one."""
        settings = self.copy.settings(shown, expiry(self.request.timeout))
        self.facts["cost"] = cost(shown, settings, self.request.timeout, list(earlier))

    def _restore(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        shown, window = self.look()
        self.facts["resource_id"] = shown.get(self.kind.resource_id)
        self.facts["versions"] = {"PostgreSQL": f"{shown.get('Engine')} {shown.get('EngineVersion')}"}
        self.estimate(shown, earlier)
        before: Prints = {}
        after: Prints = {}
        moment: Optional[datetime] = None
        if self.request.compare and self.request.point != KEPT:
            try:
                before, moment, after = self.production(self.production_login())
            except Exception as error:
                self.checks.append(conclude("data", [_unasked(error)], self.ignore))
        target = self.target(window, moment, earlier)
        self.facts["target"] = target
        if moment is not None:
            self.wait_restorable(moment)
        password = secrets.token_urlsafe(24)
        self.ended("begin")
        made = self.copy.make(self.id, target["value"], expiry(self.request.timeout), shown, password, self.waiting)
        self.ended("restore")
        self.facts["not_inherited"] = made["not_inherited"]
        self.side = {
            "login_host": made["endpoint"],
            "login_port": made["port"],
            "login_user": str(shown.get("MasterUsername")),
            "login_password": password,
            "ssl_mode": self.login.get("ssl_mode"),
            "ca_cert": self.login.get("ca_cert"),
        }
        if not self.log_in():
            return
        self.ended("ready")
        self.check("isolation", lambda: self.isolated(made))
        self.check("integrity", self.integrity)
        self.snapshot = {
            "id": self.id,
            "time": target["value"],
            "resource_id": self.facts["resource_id"],
            "prints": self.prints,
        }
        if self.request.point == KEPT:
            kept = kept_prints(self.request.directory, earlier, window)
            self.check("data", lambda: equal_to_kept(self.prints, kept))
        elif moment is not None:
            self.check("data", lambda: against_production(self.prints, before, after))
        last = newest_kept(self.request.directory, earlier, str(self.facts["resource_id"]))
        if last is not None and self.request.point != KEPT:
            self.check("since the last test", lambda: moved_since(self.prints, last))
        if self.assertions:
            self.check("assertions", lambda: asserted_in(self.session, self.assertions, 0))
        self.ended("checked")

    def production_login(self) -> Login:
        """How to log in to production, which takes the password. Raises RecoveryError where it does not."""
        asked = AskedLogin(
            db_instance_identifier=None if self.kind is CLUSTER else self.subject.name,
            db_cluster_identifier=self.subject.name if self.kind is CLUSTER else None,
            password_secret=self.request.password_secret,
        )
        try:
            found = find_login(asked, self.login, self.rds, self.secrets_in)
        except RecoveryError as error:
            raise RecoveryError(error.msg, code="LOGIN_FAILED") from error
        host, port = endpoint_of(self.kind.require(self.rds, self.subject.name))
        return {
            **self.login,
            "login_host": self.login.get("login_host") or host,
            "login_port": self.login.get("login_port") or port,
            "login_password": found["password"] or self.login.get("login_password"),
        }

    def production(self, login: Login) -> tuple[Prints, datetime, Prints]:
        """Fingerprints of production before a second and after it, and that second."""
        before, ended = self._read(login)
        moment = ended.replace(microsecond=0) + timedelta(seconds=1)
        # A commit is seen a moment after the time that it has in WAL.
        while self._clock(login) < moment + timedelta(seconds=1):
            time.sleep(0.2)
        after, _ended = self._read(login)
        return before, moment, after

    def _read(self, login: Login) -> tuple[Prints, datetime]:
        """Fingerprints of production, and when the last of their snapshots was taken, by its own clock."""
        prints: Prints = {}
        ended = self._clock(login)
        for name in self.request.compare:
            self.progress.say(f"reading database {name} of production", 0, 0, "")
            with reading(login, name) as connection:
                value(connection, "SELECT 1")  # from here on its snapshot stands
                ended = self._clock(login)
                prints[name] = fingerprints_of(connection, name).relations
                connection.rollback()
        return prints, ended

    def _clock(self, login: Login) -> datetime:
        with contextlib.closing(connect(login, self.request.compare[0])) as connection:
            seconds = value(connection, "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8")
        return datetime.fromtimestamp(float(seconds), timezone.utc)

    def wait_restorable(self, moment: datetime) -> None:
        """Wait until AWS can restore to a moment that has just been: it is about five minutes behind."""

        def look() -> Status:
            latest = self.look()[1].latest
            return Status(f"restorable to {iso(latest)}", latest is not None and latest >= moment)

        self.waiting.until(f"restorability of {iso(moment)}", look, "Nothing has been restored yet.", accepted=False)

    def session(self, database: str) -> Any:
        """A session in the copy that ends a statement when the test's time is over."""
        left = max(self.waiting.ends - self.waiting.clock(), 1.0)
        settings = {"statement_timeout": str(int(left * 1000))}
        return connect(self.side, database, application_name="dbre.recovery restore test", settings=settings)

    def log_in(self) -> bool:
        """Whether the copy lets its master user in, which may take a moment after AWS calls it available."""
        error: Optional[RecoveryError] = None
        for attempt in range(LOGIN_TRIES):
            try:
                self.session("postgres").close()
                return True
            except RecoveryError as refused:
                error = refused
            if attempt < LOGIN_TRIES - 1:
                time.sleep(2)
        text = (
            f"{error.msg if error else ''} The copy has the security groups of {self.subject.name} and is never "
            "public: the host of the test must be able to reach it inside its network."
        )
        self.checks.append(conclude("login", [finding("LOGIN_FAILED", 0, self.copy.name, text)], self.ignore))
        return False

    def isolated(self, made: Mapping[str, Any]) -> Found:
        """Read back that nobody reaches the copy from outside, and that nothing of production's came to life in it."""
        with contextlib.closing(self.session("postgres")) as connection:
            read: dict[str, Any] = dict(rows(connection, ISOLATION)[0])
        shown = made.get("members") or [made.get("instance") or made.get("cluster") or {}]
        read["publicly_accessible"] = "yes" if any(one.get("PubliclyAccessible") for one in shown) else "no"
        wanted = {**dict.fromkeys(read, "0"), "publicly_accessible": "no"}
        at = datetime.now(timezone.utc).isoformat()
        self.facts["isolation"] = [{"what": what, "value": text, "read": at} for what, text in read.items()]
        found = [
            finding("NOT_ISOLATED", 0, what, f"{what} of {self.copy.name} is {read[what]}, not {wanted[what]}")
            for what in read
            if read[what] != wanted[what]
        ]
        return found, [], read

    def integrity(self) -> Found:
        """Everything that SQL can tell."""
        looks = BySql(self.session, CLOSED, self.progress)
        try:
            return looks.run()
        finally:
            self.prints = looks.fingerprints

    def clean(self) -> None:
        """Remove the copy, and say what is left."""
        waiting = Bounded(REMOVAL, self.progress, ends=time.monotonic() + REMOVAL)
        try:
            proof = self.copy.remove(self.id, waiting)
            found = [finding("CLEANUP_FAILED", 0, self.copy.name, text) for text in proof["left"]]
        except Exception as error:
            proof, found = {}, [finding("CLEANUP_FAILED", 0, self.copy.name, rds_findings(error)[0]["message"])]
        self.facts["removed"] = proof
        self.checks.append(conclude("clean-up", found, self.ignore, (), proof))


def _unasked(error: Exception) -> Finding:
    """Why production could not be read."""
    details = error.details if isinstance(error, RecoveryError) else {}
    # connect() tells an SQLSTATE, known or not.
    code = details.get("code") or ("LOGIN_FAILED" if "sqlstate" in details else "CHECK_FAILED")
    return finding(str(code), 0, "production", said(error))


def _end(number: int, _frame: Any) -> NoReturn:
    """On the signal to end: the copy is removed on the way out."""
    raise SystemExit(128 + number)
