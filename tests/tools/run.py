"""Sets up and runs every test of the collection. Needs Debian or Ubuntu, Python 3.9, and root or sudo.

Everything it makes is below .work/, except Debian packages, podman images and the test hosts. Each step writes a log
below .work/logs/ and prints one line. The last line is "N passed, N failed": each pytest test, each sanity test of
ansible-test, each lint tool, each molecule scenario counts as one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Callable

from environment import (
    COLLECTIONS,
    INSTALLED,
    NEWEST,
    OLDEST,
    PYTHONS,
    SUDO,
    build,
    copy_sources,
    install_packages,
    prepare,
    tool_env,
)
from jobs import Job, run_jobs
from scenarios import PODMAN, hosts, oldest_job, remove_hosts, scenario_jobs
from steps import ROOT, TALLY, WORK, StepFailed, step

# Only for a developer's suites on this machine: in a whole run the test hosts run them.
SUITE_PACKAGES = (
    "check-pgbackrest",
    "pgbackrest",
    "pgbouncer",
    "postgresql",
    "postgresql-common",
    "python3-psycopg2",
    "python3-pytest",
)

# What reads prints, and letters; a browser, unless there is one: Ubuntu has no package of it that runs without snapd.
PAGE_PACKAGES = ("fonts-dejavu-core", "poppler-utils")
BROWSERS = ("chromium", "google-chrome")

# Caches of pytest would lie in the installed artifact.
PYTEST = ("-p", "no:cacheprovider")

# Jobs at the same time. One more than cores keeps all cores busy, since most scenarios do several things at once; with
# more, each waits for the others, and what is measured in seconds fails.
AT_ONCE = int(os.environ.get("AT_ONCE", 1 + (os.cpu_count() or 1)))
# About how long they take on two cores, beside others; what is not named here, a minute.
SECONDS = {
    "hosts": 230,
    "lint ansible-lint": 200,
    "molecule embedded": 2600,
    "molecule failover": 600,
    "molecule incidents": 550,
    "molecule logical_backup": 300,
    "molecule monitoring": 600,
    "molecule provision": 1000,
    "molecule rds": 1900,
    "molecule repository": 2000,
    "molecule standby": 1000,
    "molecule suites": 2600,
    "molecule table_drop": 1000,
    "oldest core table_drop": 200,
    "page": 150,
    "sanity newest": 800,
    "sanity oldest": 165,
}


# --- the tests -------------------------------------------------------------------------------------------------------


def link_sources() -> None:
    """The sources where Python finds them as a collection, below .work/lint."""
    tree = WORK / "lint" / "ansible_collections" / "dbre"
    tree.mkdir(parents=True, exist_ok=True)
    if not (tree / "recovery").is_symlink():
        (tree / "recovery").symlink_to(ROOT)


def lint_jobs() -> list[Job]:
    """Every lint tool over the sources."""
    link_sources()
    typed = ("plugins", "tests/tools", "tests/emulated_rds")
    packages = [f"ansible_collections/dbre/recovery/{name}" for name in typed]
    mypy = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(WORK / "mypy")]
    tools: list[tuple[Path, list[str]]] = [
        (ROOT, ["ruff", "check"]),
        (ROOT, ["ruff", "format", "--check", "--diff"]),
        (WORK / "lint", ["mypy", *mypy, *packages]),
        (WORK / "lint", ["lint-imports", str(ROOT / "pyproject.toml"), "--no-cache"]),
        (ROOT, ["yamllint", "--strict", "."]),
        (ROOT, ["ansible-lint", "--offline", "--strict", "--profile", "production"]),
        (ROOT, ["antsibull-changelog", "lint"]),
    ]
    names = [f"lint {tool} {options[0]}" if tool == "ruff" else f"lint {tool}" for _where, (tool, *options) in tools]
    return [Job(name, partial(lint, name, *how)) for name, how in zip(names, tools)]


def lint(name: str, directory: Path, command: Sequence[str]) -> None:
    with step(name) as log:
        log.ok = TALLY.add_command(log.run(NEWEST / "bin" / command[0], *command[1:], env=tool_env(), cwd=directory))


def sanity_jobs(whole: bool = True) -> list[Job]:
    """ansible-test sanity: all of it with the newest ansible-core, what concerns modules with the oldest.

    Unless ``whole``, pylint reads what users get only: tests are nearly half of the files, and ruff reads them too;
    sources are compiled and imported with the oldest Python only, for with the newest one everything else runs; and the
    oldest ansible-core is seen by a recovery that it runs.
    """
    if whole:
        of_modules = [word for test in ("ansible-doc", "import", "validate-modules") for word in ("--test", test)]
        oldest = Job("sanity oldest", partial(sanity, OLDEST, [of_modules]))
        return [Job("sanity newest", partial(sanity, NEWEST, [[]])), oldest]
    of_versions = ("import", "compile")
    others = [word for test in (*of_versions, "pylint") for word in ("--skip-test", test)]
    each = [word for test in of_versions for word in ("--test", test)]
    major, minor = min(found_pythons())[:2]
    newest = [others, [*each, "--python", f"{major}.{minor}"], ["--test", "pylint", "plugins/", "examples/"]]
    return [Job("sanity newest", partial(sanity, NEWEST, newest))]


def found_pythons() -> list[tuple[int, ...]]:
    """Versions of the interpreters that prepare() has found, which ansible-test takes."""
    return [tuple(map(int, path.name.removeprefix("python").split("."))) for path in PYTHONS.glob("python3.*")]


def sanity(environment: Path, runs: Sequence[Sequence[str]]) -> None:
    base = WORK / f"sanity-{environment.name}"
    tree = base / "ansible_collections" / "dbre" / "recovery"
    with step(f"sanity {environment.name}") as log:
        copy_sources(tree)
        # Modules for AWS are built on amazon.aws, which they and their documentation import.
        (amazon,) = environment.glob("lib/python3*/site-packages/ansible_collections/amazon/aws")
        beside = base / "ansible_collections" / "amazon"
        beside.mkdir(parents=True, exist_ok=True)
        (beside / "aws").unlink(missing_ok=True)
        (beside / "aws").symlink_to(amazon)
        log.must("git", "init", "--quiet", tree)  # ansible-test asks git for the files, and .work is ignored there
        env = {**tool_env(environment), "HOME": str(sanity_home(base / "home", environment))}
        command = (environment / "bin" / "ansible-test", "sanity", "--junit", "--color", "no")
        ran = [log.run(*command, *words, env=env, cwd=tree) for words in runs]
        log.ok = TALLY.add_junit(all(ran), *sorted((tree / "tests" / "output" / "junit").glob("*.xml")))


def sanity_home(home: Path, environment: Path) -> Path:
    """A home for ansible-test in which pip need not be downloaded: the interpreter's own copy stands in for it."""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not (home / ".config").is_symlink():
        (home / ".config").symlink_to(Path.home() / ".config")  # pip's settings of this machine
    (internals,) = environment.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    for version in re.findall(r"pip='([0-9.]+)'", internals.read_text()):
        stand_in = '"""Stands in for a download of pip."""\n\nimport ensurepip\n\nensurepip.bootstrap(upgrade=True)\n'
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(stand_in)
    return home


def unit() -> None:
    """Tests of the pure layer, against the installed artifact."""
    with step("unit") as log:
        report = WORK / "junit" / "unit.xml"
        tests = INSTALLED / "tests" / "unit"
        env = {**tool_env(), "PYTHONPATH": str(COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"}
        ran = log.run(NEWEST / "bin" / "pytest", *PYTEST, "--junitxml", report, tests, env=env, cwd=COLLECTIONS)
        log.ok = TALLY.add_junit(ran, report)


def page() -> None:
    """The report page in a real browser. What it looked like is in .work/page."""
    browser = () if any(map(shutil.which, BROWSERS)) else BROWSERS[:1]
    install_packages((*browser, *PAGE_PACKAGES), "page packages")
    with step("page") as log:
        report, shots = WORK / "junit" / "page.xml", WORK / "page"
        env = {**tool_env(), "PYTHONPATH": str(COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"}
        pytest = (NEWEST / "bin" / "pytest", *PYTEST, "--junitxml", report, "--basetemp", shots)
        log.ok = TALLY.add_junit(log.run(*pytest, INSTALLED / "tests" / "page", env=env, cwd=COLLECTIONS), report)


def suites() -> None:
    """The suites that need a real PostgreSQL, on this machine's: run as postgres, who may not read our home.

    For developers. The scenario "suites" runs them with every PostgreSQL of the test hosts.
    """
    install_packages(SUITE_PACKAGES)
    with step("suites") as log:
        base = Path("/var/tmp") / f"dbre-recovery-{hashlib.md5(str(ROOT).encode()).hexdigest()[:6]}"
        log.must(*SUDO, "rm", "-rf", base)
        log.must(*SUDO, "install", "-d", "-o", "postgres", "-m", "0700", base)
        log.must(*SUDO, "cp", "-r", COLLECTIONS, base)
        log.must(*SUDO, "chown", "-R", "postgres:", base)
        tests = base / "collections" / "ansible_collections" / "dbre" / "recovery" / "tests" / "postgres"
        env = ("env", f"PYTHONPATH={base}/collections", "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
        as_postgres = ("runuser", "-u", "postgres", "--", *env, "sh", "-c", f'cd {base} && exec "$@"', "sh")
        pytest = ("/usr/bin/python3", "-m", "pytest", *PYTEST, "--junitxml", base / "junit.xml", tests)
        ran = log.run(*SUDO, *as_postgres, *pytest)
        report = WORK / "junit" / "suites.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        log.run(*SUDO, "install", "-m", "0644", base / "junit.xml", report)
        log.ok = TALLY.add_junit(ran, report)
        log.must(*SUDO, "rm", "-rf", base)


# --- the end ---------------------------------------------------------------------------------------------------------


def clean() -> None:
    """Remove the hosts, their images and .work. Debian packages stay."""
    if (NEWEST / "bin" / "molecule").exists():
        remove_hosts()
    ours = "reference=localhost/dbre-recovery-test/*"
    ask = [str(PODMAN), "images", "--filter", ours, "--format", "{{.Repository}}:{{.Tag}}"]
    for image in subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split():
        # Refused, and rightly so, while another checkout's hosts run from it.
        subprocess.run([str(PODMAN), "rmi", image], check=False, capture_output=True)
    subprocess.run([str(PODMAN), "leave"], check=False)
    for leftover in (WORK, ROOT / ".ansible"):
        shutil.rmtree(leftover, ignore_errors=True)


def docs() -> None:
    """Write anew the READMEs of the roles from their argument specs, and the tables of options and metrics."""
    link_sources()
    env = {**tool_env(), "PYTHONPATH": str(WORK / "lint")}
    with step("docs") as log:
        for writer in ("role_readmes.py", "option_tables.py", "metrics_page.py"):
            log.must(NEWEST / "bin" / "python", ROOT / "tests" / "tools" / writer, env=env)


def test_all(whole: bool) -> None:
    """Everything; ``whole``: each case on every version and at every site, also where that cannot matter."""
    here = [Job("unit", unit), Job("page", page), *lint_jobs(), *sanity_jobs(whole)]
    try:
        run_jobs([Job("hosts", hosts), *here, *scenario_jobs(whole=whole), oldest_job()], AT_ONCE, SECONDS)
    finally:
        remove_hosts()


def run_scenarios(names: Sequence[str], whole: bool) -> None:
    run_jobs([Job("hosts", hosts), *scenario_jobs(names, whole)], AT_ONCE, SECONDS)


def lock_checkout() -> None:
    """Wait until no other run works in this checkout, since both would use the same installed artifact and hosts."""
    WORK.mkdir(exist_ok=True)
    descriptor = os.open(WORK / "lock", os.O_CREAT | os.O_RDWR)  # the system releases it when this process ends
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another run in this checkout", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps: dict[str, Callable[[], None]] = {
        "test": partial(test_all, whole=False),
        "test-matrix": partial(test_all, whole=True),
        "lint": lambda: run_jobs(lint_jobs(), AT_ONCE, SECONDS),
        "sanity": lambda: run_jobs(sanity_jobs(), AT_ONCE, SECONDS),
        "molecule": lambda: run_scenarios(arguments.scenario, arguments.whole),
        **{step.__name__: step for step in (unit, page, suites, hosts, docs)},
        "build": lambda: None,
    }
    parser.add_argument("step", choices=[*steps, "clean"])
    parser.add_argument("scenario", nargs="*", help="for molecule: scenarios to run, all by default")
    parser.add_argument("--whole", action="store_true", help="for molecule: the whole matrix, as test-matrix does")
    arguments = parser.parse_args()
    if arguments.step == "clean":
        clean()
        return 0
    start = time.monotonic()
    try:
        lock_checkout()
        prepare()
        build()
        steps[arguments.step]()
    except StepFailed as error:
        print(f"stopped: {error}", flush=True)
        TALLY.add(0, 1)
    if arguments.step in ("build", "hosts", "docs") and not TALLY.failed:
        return 0
    print(TALLY.durations(), flush=True)
    for failure in TALLY.failures:
        print(f"failed: {failure}", flush=True)
    if TALLY.failed_steps:
        print(f"failed: {', '.join(TALLY.failed_steps)}", flush=True)
    print(f"{'total':<31} {time.monotonic() - start:6.1f} s", flush=True)
    print(f"{TALLY.passed} passed, {TALLY.failed} failed", flush=True)
    return 0 if TALLY.passed and not TALLY.failed else 1


if __name__ == "__main__":
    sys.exit(main())
