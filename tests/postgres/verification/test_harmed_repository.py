# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real repository that is harmed in each way that a repository can be, and what is said of it.

check_pgbackrest, another program that walks an archive, must agree about WAL that is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._verification.examine import Examination, combined
from ansible_collections.dbre.recovery.tests.postgres.wal.cluster import STANZA, Cluster

PORT = 6390
HOUR = 3600.0
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": 24 * HOUR, "incr": HOUR}}


def run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class Repository:
    """The repository of a server, which each test harms and which is whole again for the next."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.path = cluster.root / "repository"
        self.kept = cluster.root / "kept"

    def examine(self, *checks: str, now: float | None = None, **asked: Any) -> dict[str, Any]:
        pgbackrest = PgBackRest(run, stanza=STANZA, config=str(self.cluster.config))
        given = {"policy": POLICY, "ignore": {}, "waiting": [], **asked}
        return combined(Examination(pgbackrest, now=now or time.time(), **given).run(checks), checks)

    def found(self, *checks: str, **asked: Any) -> tuple[str, set[str]]:
        result = self.examine(*checks, **asked)
        return result["verdict"], {item["code"] for item in result["findings"]}

    def segments(self) -> list[Path]:
        return sorted(path for path in self.path.glob("archive/*/*/*/*") if "-" in path.name)

    def backups(self) -> list[Path]:
        return sorted(path for path in self.path.glob("backup/*/*F*") if path.is_dir())

    def restore(self) -> None:
        shutil.rmtree(self.path)
        self.copy(self.kept, self.path)

    def keep(self) -> None:
        """What there is now is what later tests begin with; its WAL is as old as WAL usually is."""
        for path in self.segments():
            os.utime(path, (time.time() - HOUR,) * 2)
        shutil.rmtree(self.kept, ignore_errors=True)
        self.copy(self.path, self.kept)

    @staticmethod
    def copy(source: Path, target: Path) -> None:
        # Links are enough: nobody writes into a file of a repository.
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)

    def oracle(self) -> tuple[str, list[str]]:
        """What check_pgbackrest says of the archive: its verdict, and the segments that it misses."""
        argv = ["check_pgbackrest", "--service=archives", f"--stanza={STANZA}", f"--config={self.cluster.config}"]
        _rc, out, err = run([*argv, "--max-archives-check-number=1000", "--output=json", "--debug"])
        assert "[{" in out, err
        answer = json.loads(out[out.rindex("[{") :])[0]
        return answer["status"]["message"], sorted(re.findall(r"DEBUG: missing ([0-9A-F]{24})", out))


def lost(result: dict[str, Any]) -> list[str]:
    (check,) = [one for one in result["checks"] if one["check"] == "continuity"]
    (archive,) = check["facts"]["repositories"]["1"].values()
    return list(archive["lost"]["names"])


def flip(path: Path) -> None:
    """Another byte in the middle of a file, whose length stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(content)


ALL = ("completes", "size", "continuity", "repository")


@pytest.fixture(scope="module")
def whole() -> Iterator[Repository]:
    root = Path(tempfile.mkdtemp(prefix="verification-"))
    # check_pgbackrest never ends where timelines meet in segments of another size than 16 MiB.
    cluster = Cluster(root, PORT).init(segment_mb=16)
    cluster.config.write_text(cluster.config.read_text().replace("compress-type=none", "compress-type=zst"))
    cluster.start()
    try:
        cluster.sql("CREATE DATABASE shop", database="postgres")
        cluster.pgbackrest("stanza-create")
        cluster.sql("CREATE TABLE large AS SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g")
        for _turn in range(3):
            cluster.pgbackrest("backup", "--type=full", "--repo1-retention-full=9")
        for number in range(4):
            cluster.sql(f"CREATE TABLE small{number} AS SELECT {number} AS id")
            cluster.archived()
        cluster.pgbackrest("backup", "--type=incr", "--repo1-retention-full=9")
        cluster.sql("CREATE TABLE last AS SELECT 1 AS id")
        cluster.archived()
        repository = Repository(cluster)
        repository.keep()
        yield repository
    finally:
        cluster.stop()
        shutil.rmtree(root)


@pytest.fixture
def repository(whole: Repository) -> Iterator[Repository]:
    yield whole
    whole.restore()


def test_a_repository_that_is_whole_is_verified(repository: Repository) -> None:
    result = repository.examine(*ALL)
    assert (result["verdict"], result["findings"]) == ("verified", [])
    assert [item["what"] for item in result["not_checked"]] == [
        "size of full backups in repository 1",
        "size of incr backups in repository 1",
    ]
    assert repository.oracle() == ("OK", [])


def test_a_byte_of_a_backup_is_found_whatever_the_exit_status_says(repository: Repository) -> None:
    label = repository.backups()[0].name
    files = [path for path in repository.backups()[0].glob("pg_data/base/*/*") if path.stat().st_size > 8192]
    flip(files[0])
    result = repository.examine("repository")
    assert result["verdict"] == "failed"
    assert [(item["code"], item["subject"]) for item in result["findings"]] == [
        ("FILE_CORRUPT", f"{label}/{files[0].relative_to(repository.backups()[0])}")
    ]


def test_a_byte_of_a_wal_segment_is_found(repository: Repository) -> None:
    segment = repository.segments()[-2]
    flip(segment)
    result = repository.examine("repository")
    assert [(item["code"], item["subject"]) for item in result["findings"]] == [("WAL_CORRUPT", segment.name[:24])]


def test_a_segment_missing_in_the_middle_is_found_though_verify_says_ok(repository: Repository) -> None:
    segments = repository.segments()
    gone = [segments[-5], segments[-3]]
    for path in gone:
        path.unlink()
    names = [path.name[:24] for path in gone]
    result = repository.examine("continuity")
    assert (result["verdict"], lost(result)) == ("failed", names)
    status, missing = repository.oracle()
    assert status in ("WARNING", "CRITICAL")
    # On a busy machine it was seen to stop looking after the first.
    assert missing in (names, names[:1])
    assert repository.found("repository") == ("verified", set())


def test_what_the_server_has_yet_to_archive_is_not_lost(repository: Repository) -> None:
    gone = repository.segments()[-3]
    gone.unlink()
    assert repository.found("continuity", waiting=[gone.name[:24]]) == ("verified", set())


def test_a_file_and_a_manifest_that_are_gone_are_found(repository: Repository) -> None:
    oldest, newest = repository.backups()[0], repository.backups()[-1]
    (oldest / "pg_data/PG_VERSION.zst").unlink()
    for path in newest.glob("backup.manifest*"):
        path.unlink()
    assert repository.found("repository") == ("failed", {"FILE_MISSING", "MANIFEST_MISSING"})


def test_a_repository_that_says_nothing_of_its_backups_is_no_green(repository: Repository) -> None:
    for path in repository.path.glob("backup/*/backup.info*"):
        path.unlink()
    verdict, codes = repository.found(*ALL)
    assert verdict == "failed"
    assert codes <= {"STANZA_MISSING", "REPOSITORY_INFO_UNUSABLE"}


def test_a_repository_that_is_not_there_is_no_green(repository: Repository) -> None:
    repository.path.rename(repository.cluster.root / "unmounted")
    try:
        assert repository.found(*ALL) == ("failed", {"STANZA_MISSING"})
    finally:
        (repository.cluster.root / "unmounted").rename(repository.path)


@pytest.fixture
def two(repository: Repository) -> Iterator[Path]:
    """A second repository, a copy of the first; what is left of it, and its configuration, is removed."""
    config, second = repository.cluster.config, repository.cluster.root / "second"
    alone = config.read_text()
    repository.copy(repository.path, second)
    config.write_text(alone.replace("[global]\n", f"[global]\nrepo2-path={second}\n"))
    yield second
    config.write_text(alone)
    shutil.rmtree(second, ignore_errors=True)


@pytest.mark.parametrize(
    ("gone", "verdict", "code"),
    [
        (".", "failed", "STANZA_MISSING"),
        ("backup", "failed", "STANZA_MISSING"),
        ("archive", "could_not_verify", "REPOSITORY_UNREADABLE"),
    ],
)
def test_a_second_repository_of_which_pgbackrest_tells_nothing_is_no_green(
    repository: Repository, two: Path, gone: str, verdict: str, code: str
) -> None:
    assert repository.found(*ALL) == ("verified", set())
    shutil.rmtree(two / gone)
    result = repository.examine(*ALL)
    assert (result["verdict"], {item["code"] for item in result["findings"]}) == (verdict, {code})
    assert {item["repo"] for item in result["findings"]} == {2}


def test_a_second_repository_whose_archive_ends_before_the_first_one_s_is_found(
    repository: Repository, two: Path
) -> None:
    segments = sorted(path for path in two.glob("archive/*/*/*/*") if "-" in path.name)
    segments[-1].unlink()
    result = repository.examine("continuity")
    assert [(item["code"], item["repo"]) for item in result["findings"]] == [("WAL_LOST", 2)]
    assert segments[-2].name[:24] in result["findings"][0]["message"]
    # It may be on its way.
    os.utime(repository.segments()[-1])
    assert repository.found("continuity") == ("verified", set())


def test_backups_of_another_cluster_than_production_are_no_green(repository: Repository, two: Path) -> None:
    assert repository.found("completes", system_identifier="7") == ("failed", {"CLUSTER_DIFFERS"})
    identifier = repository.cluster.sql("SELECT system_identifier::text FROM pg_control_system()")
    assert repository.found("completes", system_identifier=identifier) == ("verified", set())
    # Production was made anew, and the second repository did not notice.
    other = Cluster(repository.cluster.root / "other", PORT + 1).init()
    shutil.rmtree(two)
    two.mkdir()
    text = repository.cluster.config.read_text().replace(str(repository.cluster.data), str(other.data))
    other.config.write_text(text.replace("repo1-path", "#repo1-path").replace("repo2-path", "repo1-path"))
    other.pgbackrest("stanza-create", "--no-online")
    other.pgbackrest("backup", "--no-online")
    result = repository.examine("completes")
    assert ("CLUSTER_DIFFERS", 2) in [(item["code"], item["repo"]) for item in result["findings"]]


def test_what_one_check_could_not_read_hides_nothing_that_another_one_found(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = repository.segments()[-3]
    segment.unlink()

    def verify(*_asked: Any) -> Any:
        raise RecoveryError("pgBackRest info says nothing")

    monkeypatch.setattr(PgBackRest, "verify", verify)
    assert repository.found(*ALL) == ("failed", {"WAL_LOST", "REPOSITORY_UNREADABLE"})


def test_a_pgbackrest_without_verify_leaves_it_open(repository: Repository) -> None:
    old = repository.cluster.root / "old-pgbackrest"
    old.write_text('#!/bin/sh\nfor last; do :; done\n[ "$last" = verify ] && set -- nonsense\nexec pgbackrest "$@"\n')
    old.chmod(0o755)
    pgbackrest = PgBackRest(run, stanza=STANZA, config=str(repository.cluster.config), executable=str(old))
    examination = Examination(pgbackrest, policy=None, ignore={}, waiting=[], now=time.time())
    (check,) = examination.run(["repository"])
    assert (check["verdict"], [item["code"] for item in check["findings"]]) == (
        "could_not_verify",
        ["VERIFY_UNAVAILABLE"],
    )


def test_a_repository_that_is_readable_and_stale_is_found(repository: Repository) -> None:
    assert repository.found(*ALL, now=time.time() + 27 * HOUR) == ("failed", {"BACKUP_STALE"})


def test_the_way_over_timelines_is_walked_as_check_pgbackrest_does(repository: Repository) -> None:
    cluster = repository.cluster
    cluster.stop("fast")
    (cluster.data / "standby.signal").touch()
    cluster.start()
    subprocess.run([cluster.bin / "pg_ctl", "-D", cluster.data, "-w", "promote"], check=True, stdout=subprocess.DEVNULL)
    for number in range(3):
        cluster.sql(f"CREATE TABLE promoted{number} AS SELECT 1 AS id")
        cluster.archived()
    repository.keep()
    result = repository.examine(*ALL)
    assert (result["verdict"], result["findings"]) == ("verified", [])
    (archive,) = result["checks"][2]["facts"]["repositories"]["1"].values()
    assert archive["timelines"] == [1, 2]
    assert repository.oracle() == ("OK", [])
    boundary = [path for path in repository.segments() if path.name.startswith("00000002")][0]
    before = [path for path in repository.segments() if path.name.startswith("00000001")][-2]
    for path in (before, boundary):
        path.unlink()
    result = repository.examine("continuity")
    assert lost(result) == [before.name[:24], boundary.name[:24]]
    assert repository.oracle()[1] == lost(result)
    for path in repository.path.glob("archive/*/*/*.history"):
        path.unlink()
    assert "WAL_HISTORY_MISSING" in repository.found("continuity")[1]


def test_a_backup_half_its_usual_size_is_found(repository: Repository) -> None:
    repository.cluster.sql("DROP TABLE large")
    repository.cluster.pgbackrest("backup", "--type=full", "--repo1-retention-full=9")
    assert repository.found("size", "completes") == ("failed", {"SIZE_DROPPED"})


def test_a_server_that_works_expires_and_archives_raises_no_alarm(repository: Repository) -> None:
    """Segments come out of order and by the dozen, and backups go, while it is looked at."""
    cluster = repository.cluster
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cluster.sql(f"CREATE TABLE living{number} AS SELECT g FROM generate_series(1, 40000) g")
            if number % 8 == 0:
                cluster.pgbackrest("backup", "--type=full", "--repo1-retention-full=1")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        seen = [repository.found("completes", "continuity", "repository") for _turn in range(8)]
    finally:
        stop.set()
        worker.join()
        cluster.archived()  # nothing is written there any more when the repository is made whole again
    assert set(map(str, seen)) == {str(("verified", set()))}
