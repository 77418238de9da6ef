"""What somebody sees who verifies backups: that all is well, what is wrong, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from runs import Run, run


@pytest.fixture
def verify(shop: Any, tmp_path: Path) -> Any:
    """Runs the playbook, with a place of its own for the history."""
    place = shop.folder / f"verified-{tmp_path.name}"

    def play(*words: str) -> Run:
        given = {
            "verify_hosts": "primary",
            "backup_verification_directory": str(place),
            "backup_verification_base_dir": str(shop.folder / "side"),
        }
        command = ["ansible-playbook", "-i", str(shop.inventory_file), str(ROOT / "playbooks" / "verify-backups.yml")]
        return run([*command, "-e", json.dumps(given), *words], shop.environment)

    play.place = place  # type: ignore[attr-defined]
    return play


def history(place: Path) -> list[dict[str, Any]]:
    (path,) = place.glob("verification-*.json")
    return list(json.loads(path.read_text())["attempts"])


def archive(shop: Any) -> None:
    """Have WAL behind the newest backup, with commits in it."""
    for _turn in range(3):
        shop.query("shop", "UPDATE public.orders SET what = what WHERE id < 10")
        shop.query("shop", "SELECT pg_switch_wal()")
    shop.pgbackrest("check")


def test_a_backup_is_restored_checked_and_removed(shop: Any, verify: Any) -> None:
    archive(shop)
    asked = {"name": "orders", "database": "shop", "sql": "SELECT count(*) FROM public.orders", "expect": ">= 3000"}
    done = verify(
        "-e", json.dumps({"backup_verification_compare": ["shop"], "backup_verification_assertions": [asked]})
    )
    assert done.rc == 0, done.output
    assert "VERIFIED: stanza" in done.output
    (attempt,) = history(verify.place)
    assert (attempt["verdict"], attempt["codes"]) == ("verified", [])
    assert set(attempt["seconds"]) == {"restore", "replay", "ready", "checked"}
    assert attempt["rto"]["met"] is True
    (place,) = (verify.place / "verifications").iterdir()
    report = json.loads((place / "report.json").read_text())
    assert [check["check"] for check in report["checks"]] == [
        "completes", "size", "continuity", "repository", "boundary", "integrity", "data", "assertions", "checksums",
        "clean-up", "evidence",
    ]  # fmt: skip
    assert report["removed"]["left"] == []
    assert report["checks"][6]["facts"]["databases"]["shop"]["rows"] >= 6000
    assert attempt["rpo"]["met"] is True
    assert "transactions would have been lost" in done.output
    assert {"junit.xml", "report.html", "snapshot.json"} <= {path.name for path in place.iterdir()}
    assert not any(os.scandir(shop.folder / "side"))
    # The plan of a recovery knows from it how long the restore takes, on a host where no incident was before.
    shop.drop_orders()
    given = {"backup_verification_directory": str(verify.place), "dr_report_dir": str(verify.place / "incidents")}
    planned = shop.recover("--check", dr_tables=["public.orders"], **given)
    assert re.search(r"Restore takes +restore .* at .*/s", planned.output)
    assert re.search(r"Expected time +about .* until the side instance is there", planned.output)


def test_a_fault_is_said_and_still_nothing_is_left(shop: Any, verify: Any) -> None:
    archive(shop)
    shop.query("shop", "CREATE TABLE public.numbered (id serial PRIMARY KEY)")
    shop.query("shop", "INSERT INTO public.numbered VALUES (7)")
    archive(shop)
    done = verify()
    assert done.rc != 0
    assert "SEQUENCE_BEHIND" in done.output
    assert (history(verify.place)[-1]["verdict"], history(verify.place)[-1]["codes"]) == ("failed", ["SEQUENCE_BEHIND"])
    assert not any(os.scandir(shop.folder / "side"))
    ignored = verify("-e", json.dumps({"backup_verification_ignore": {"SEQUENCE_BEHIND": "the loader sets it"}}))
    assert ignored.rc == 0, ignored.output
    assert "ignored: the loader sets it" in ignored.output


def test_backups_of_another_cluster_than_production_are_not_verified(shop: Any, verify: Any) -> None:
    """Production was made anew, and its stanza was not: the backups are sound, and of the data of before."""
    archive(shop)
    with shop.made_anew():
        done = verify()
    assert done.rc != 0
    assert (history(verify.place)[-1]["verdict"], history(verify.place)[-1]["codes"]) == ("failed", ["CLUSTER_DIFFERS"])
    assert "was pgbackrest stanza-upgrade run" in done.output
    assert history(verify.place)[-1]["rpo"] is None


def test_a_timeline_that_production_does_not_have_is_another_server_s(shop: Any, verify: Any) -> None:
    """A copy of production was promoted, and archived into production's repository before it was stopped."""
    archive(shop)
    history_file = shop.data / "pg_wal" / "00000002.history"
    shop.run("sh", "-c", f"printf '1\\t0/3000000\\tno recovery target specified\\n' > {history_file}")
    try:
        options = [f"--config={shop.pgbackrest_config}", "--stanza=main"]
        shop.run("pgbackrest", *options, "archive-push", history_file)
        done = verify()
    finally:
        shop.run("sh", "-c", f"rm -f {history_file} {shop.repository}/archive/*/*/00000002.history*")
    assert done.rc != 0
    assert "TIMELINE_DIFFERS: the archive of repository 1 has timeline 2, and production is on 1" in done.output
    assert history(verify.place)[-1]["verdict"] == "failed"


def test_a_restore_that_cannot_be_made_here_is_no_success_and_an_attempt(shop: Any, verify: Any) -> None:
    archive(shop)
    done = verify("-e", "postgresql_bin_dir=/nonexistent")
    assert done.rc != 0
    assert (history(verify.place)[-1]["verdict"], history(verify.place)[-1]["codes"]) == (
        "could_not_verify",
        ["HOST_UNFIT"],
    )
    assert "Production was not touched" in done.output


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("pgbackrest_config_path={folder}/wrong.conf", "REPOSITORY_UNREADABLE"),
        ("pgbackrest_config_path=/nonexistent.conf", "REPOSITORY_UNREADABLE"),
        ("pgbackrest_executable=/nonexistent", "HOST_UNFIT"),
        ("postgresql_superuser=nobody", "LOGIN_FAILED"),
    ],
)
def test_a_word_that_is_wrong_says_nothing_of_the_backup_and_leaves_nothing(
    shop: Any, verify: Any, word: str, code: str
) -> None:
    archive(shop)
    passphrase = re.sub("(?<=cipher-pass=).*", "of before", shop.pgbackrest_config.read_text())
    (shop.folder / "wrong.conf").write_text(passphrase)
    done = verify("-e", word.format(folder=shop.folder))
    assert done.rc != 0
    assert code in done.output, done.output
    attempt = history(verify.place)[-1]
    assert (attempt["verdict"], set(attempt["codes"])) == ("could_not_verify", {code})
    assert shop.run("sh", "-c", f"ls -A {shop.folder}/side 2>/dev/null || true") == ""


def test_a_moment_that_is_none_is_refused_before_anything_is_tried(shop: Any, verify: Any) -> None:
    done = verify("-e", "backup_verification_point=yesterday")
    assert done.rc != 0
    assert "backup_verification_point: 'yesterday' is no time. Nothing was changed." in done.output
    assert "It may be latest, random, kept or an LSN as well." in done.output
    assert not list(verify.place.glob("verification-*.json"))


@pytest.mark.whole
def test_check_mode_restores_nothing(shop: Any, verify: Any) -> None:
    done = verify("--check")
    assert done.rc == 0, done.output
    assert "check mode restores nothing" in done.output
    assert not verify.place.exists()


@pytest.fixture
def small(shop: Any) -> Iterator[Path]:
    """A real file system with room for the plan, that another program fills as soon as files are restored."""
    place = shop.folder / "small"
    place.mkdir()
    subprocess.run(
        [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size=2g,mode=0700,uid={pwd.getpwnam(shop.user).pw_uid}",
            "dbre-small",
            place,
        ],
        check=True,
    )
    stop = threading.Event()

    def fill() -> None:
        while not any(place.glob("verify-*/data/*")):
            if stop.wait(0.02):
                return
        with (place / "other").open("wb") as file:
            size = 0
            while not stop.is_set():  # what is freed meanwhile, too
                for more in (16 << 20, 1 << 20, 4096):
                    with contextlib.suppress(OSError):
                        while not stop.is_set():
                            os.posix_fallocate(file.fileno(), size, more)
                            size += more
                time.sleep(0.02)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield place
    finally:
        stop.set()
        filling.join()
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def test_a_disk_that_fills_says_nothing_of_the_backup_and_nothing_is_left(shop: Any, verify: Any, small: Path) -> None:
    archive(shop)
    done = verify("-e", f"backup_verification_base_dir={small}")
    assert done.rc != 0
    (attempt,) = history(verify.place)
    assert (attempt["verdict"], attempt["codes"]) == ("could_not_verify", ["NO_ROOM"]), done.output
    assert [path.name for path in small.iterdir()] == ["other"]
