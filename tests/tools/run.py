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
import threading
import time
import xml.etree.ElementTree
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work"
LOGS = WORK / "logs"
NEWEST = WORK / "newest"
OLDEST = WORK / "oldest"
PYTHONS = WORK / "pythons"
COLLECTIONS = WORK / "collections"
INSTALLED = COLLECTIONS / "ansible_collections" / "dbre" / "recovery"
SCENARIOS = ROOT / "extensions" / "molecule"
PODMAN = SCENARIOS / "default" / "podman"
INVENTORY = WORK / "hosts" / "inventory.yml"

SUDO = [] if os.geteuid() == 0 else ["sudo"]
# The scenario that proves the oldest ansible-core on real hosts.
OLDEST_SCENARIO = os.environ.get("OLDEST_SCENARIO", "table_drop")

PACKAGES = {
    "acl": "an unprivileged login that becomes postgres",
    "debian-archive-keyring": "mmdebstrap of Debian on Ubuntu",
    "git": "the list of the project's files",
    "iptables": "podman's network",
    "mmdebstrap": "images of the test hosts",
    "openssh-client": "the way to the test hosts",
    "podman": "the test hosts",
    "postgresql": "databases of the emulated RDS",
    "postgresql-common": "no cluster of its own when PostgreSQL is installed",
    "python3-venv": "environments of the newest and the oldest ansible-core",
    "shellcheck": "a test of ansible-test sanity",
}
# Only for a developer's suites on this machine: in a whole run the test hosts run them.
SUITE_PACKAGES = ("pgbackrest", "pgbouncer", "postgresql", "postgresql-common", "python3-psycopg2", "python3-pytest")


# Caches of pytest would lie in the installed artifact.
PYTEST = ("-p", "no:cacheprovider")


class StepFailed(Exception):
    """A command without which nothing that follows makes sense has failed."""


class Tally:
    """What has passed and what has failed, over all steps."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.failed_steps: list[str] = []
        self._lock = threading.Lock()

    def add(self, passed: int, failed: int) -> None:
        with self._lock:
            self.passed += passed
            self.failed += failed

    def add_command(self, ok: bool) -> bool:
        self.add(int(ok), int(not ok))
        return ok

    def add_junit(self, ran: bool, *files: Path) -> bool:
        """Count the test cases of JUnit files; ``ran`` is whether their command succeeded.

        A skipped pytest test proves nothing and counts as failed. So does a command that failed, or wrote no test.
        """
        passed = failed = 0
        for file in filter(Path.exists, files):
            for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
                if case.find("failure") is not None or case.find("error") is not None:
                    failed += 1
                elif case.find("skipped") is None:
                    passed += 1
                elif case.get("classname") != "sanity":  # ansible-test "skips" what does not apply to any file
                    failed += 1
        if not failed and not (ran and passed):
            failed = 1
        self.add(passed, failed)
        return not failed


TALLY = Tally()


class Log:
    """The log file of one step."""

    def __init__(self, name: str) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self.ok = True
        self.path.write_text("")

    def run(self, *command: object, env: Optional[dict[str, str]] = None, cwd: Path = ROOT) -> bool:
        """Run one command, its output into the log; True when it succeeded."""
        words = [str(word) for word in command]
        with self.path.open("a") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            done = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
            log.write(f"-> {done.returncode}\n")
        return done.returncode == 0

    def must(self, *command: object, env: Optional[dict[str, str]] = None, cwd: Path = ROOT) -> None:
        if not self.run(*command, env=env, cwd=cwd):
            raise StepFailed(" ".join(str(word) for word in command))

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.path.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def step(name: str) -> Iterator[Log]:
    """One step: a log, a line with its duration, and the end of the log when it failed (not ``log.ok``, or raised)."""
    log, start = Log(name.replace(" ", "-")), time.monotonic()
    try:
        yield log
    except BaseException:
        log.ok = False
        raise
    finally:
        if not log.ok:
            TALLY.failed_steps.append(name)
        said = f"{name:<24} {'ok' if log.ok else 'FAILED':<6} {time.monotonic() - start:6.1f} s"
        print(said if log.ok else f"{said}  ({log.path})\n{log.tail()}", flush=True)


# --- what the tests need ---------------------------------------------------------------------------------------------


def lock_checkout() -> None:
    """Wait until no other run works in this checkout, since both would use the same installed artifact and hosts."""
    WORK.mkdir(exist_ok=True)
    descriptor = os.open(WORK / "lock", os.O_CREAT | os.O_RDWR)  # the system releases it when this process ends
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another run in this checkout", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def install_packages(wanted: Collection[str]) -> None:
    """Install the Debian packages that are missing."""
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    present = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    missing = sorted(set(wanted) - present)
    if not missing:
        return
    with step("packages") as log:
        if "postgresql-common" in missing:  # a fresh PostgreSQL would make a cluster of its own
            place = "/etc/postgresql-common"
            write = f"mkdir -p {place} && echo create_main_cluster=false >> {place}/createcluster.conf"
            log.must(*SUDO, "sh", "-c", write)
        log.must(*SUDO, "apt-get", "update")
        log.must(*SUDO, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", *missing)


def find_pythons() -> dict[tuple[int, int], Path]:
    """Every Python of this machine that really runs and can make environments: version -> interpreter."""
    places = [Path(place) for place in os.environ["PATH"].split(os.pathsep)] + [Path("/usr/bin")]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found: dict[tuple[int, int], Path] = {}
    for minor in range(9, 15):
        for place in places:
            # A shim may bear a version's name and yet fail, or start another version: ask it.
            for name in (f"python3.{minor}", "python3"):
                probe = [
                    str(place / name),
                    "-c",
                    "import sys, venv, ensurepip; print(sys.version_info[1], sys._base_executable)",
                ]
                if (3, minor) in found or not os.access(probe[0], os.X_OK):
                    continue
                said = subprocess.run(probe, capture_output=True, text=True, check=False).stdout.split()
                if said and int(said[0]) == minor:
                    found[(3, minor)] = Path(said[1])
    return found


def make_environment(path: Path, python: Path, requirements: Path) -> None:
    """A virtual environment with the requirements; kept as long as neither they nor the interpreter change."""
    stamp = path / "made-of"
    wanted = f"{python}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with step(f"environment {path.name}") as log:
        shutil.rmtree(path, ignore_errors=True)
        log.must(python, "-m", "venv", path)
        log.must(path / "bin" / "pip", "install", "--disable-pip-version-check", "--requirement", requirements)
        stamp.write_text(wanted)


def prepare() -> None:
    """Packages and both environments. The two are made at the same time."""
    install_packages(PACKAGES)
    pythons = find_pythons()
    PYTHONS.mkdir(parents=True, exist_ok=True)
    for (major, minor), path in pythons.items():
        link = PYTHONS / f"python{major}.{minor}"
        if not link.is_symlink() or link.resolve() != path.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    able = sorted(version for version in pythons if version >= (3, 10))
    newest = [version for version in able if version >= (3, 11)]
    if not newest:
        raise StepFailed(f"no Python 3.11 to 3.14 with venv and ensurepip on this machine, only {sorted(pythons)}")
    tools = Path(__file__).parent
    in_parallel(
        lambda: make_environment(NEWEST, pythons[newest[-1]], tools / "requirements-newest.txt"),
        lambda: make_environment(OLDEST, pythons[able[0]], tools / "requirements-oldest.txt"),
    )


def in_parallel(*jobs: Callable[[], None]) -> None:
    """Run the jobs at the same time; the first exception of any is raised when all have ended."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def copy_sources(target: Path) -> None:
    """Copy the project's files, and nothing that lies around beside them, to ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    names = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def path_with(*environments: Path) -> str:
    places = [*(path / "bin" for path in environments), PYTHONS, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join(str(place) for place in places)


def tool_env(*environments: Path) -> dict[str, str]:
    """For Ansible tools: our collection is the installed artifact, community collections are the environment's own."""
    return {
        "PATH": path_with(*(environments or (NEWEST,))),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_HOME": str(WORK / "ansible"),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "RUFF_CACHE_DIR": str(WORK / "ruff"),
    }


def build() -> None:
    """Build the artifact and install it where all tests take it from."""
    with step("build and install") as log:
        artifacts = WORK / "artifact"
        shutil.rmtree(artifacts, ignore_errors=True)
        shutil.rmtree(COLLECTIONS, ignore_errors=True)
        copy_sources(WORK / "sources")
        galaxy = NEWEST / "bin" / "ansible-galaxy"
        log.must(galaxy, "collection", "build", "--output-path", artifacts, WORK / "sources", env=tool_env())
        (artifact,) = artifacts.glob("*.tar.gz")
        log.must(
            galaxy, "collection", "install", "--no-deps", "--collections-path", COLLECTIONS, artifact, env=tool_env()
        )


def docs() -> None:
    """Write the READMEs of the roles anew from their argument specs."""
    with step("docs") as log:
        log.must(NEWEST / "bin" / "python", ROOT / "tests" / "tools" / "role_readmes.py")


# --- the tests -------------------------------------------------------------------------------------------------------


def lint() -> None:
    """Every lint tool over the sources."""
    tree = WORK / "lint" / "ansible_collections" / "dbre"
    tree.mkdir(parents=True, exist_ok=True)
    if not (tree / "recovery").is_symlink():
        (tree / "recovery").symlink_to(ROOT)
    typed = ("plugins", "tests/tools", "tests/emulated_rds")
    packages = [f"ansible_collections/dbre/recovery/{name}" for name in typed]
    mypy = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(WORK / "mypy")]
    tools: list[tuple[Path, list[str]]] = [
        (ROOT, ["ruff", "check"]),
        (ROOT, ["ruff", "format", "--check", "--diff"]),
        (WORK / "lint", ["mypy", *mypy, *packages]),
        (ROOT, ["yamllint", "--strict", "."]),
        (ROOT, ["ansible-lint", "--offline", "--strict", "--profile", "production"]),
        (ROOT, ["antsibull-changelog", "lint"]),
    ]
    for directory, (tool, *options) in tools:
        with step(f"lint {tool} {options[0]}" if tool == "ruff" else f"lint {tool}") as log:
            log.ok = TALLY.add_command(log.run(NEWEST / "bin" / tool, *options, env=tool_env(), cwd=directory))


def sanity() -> None:
    """ansible-test sanity: all of it with the newest ansible-core, what concerns modules with the oldest."""
    base = WORK / "sanity"
    tree = base / "ansible_collections" / "dbre" / "recovery"
    of_modules = [word for test in ("ansible-doc", "import", "validate-modules") for word in ("--test", test)]
    for environment, tests in ((NEWEST, []), (OLDEST, of_modules)):
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
            command = (environment / "bin" / "ansible-test", "sanity", "--junit", "--color", "no", *tests)
            ran = log.run(*command, env=env, cwd=tree)
            log.ok = TALLY.add_junit(ran, *sorted((tree / "tests" / "output" / "junit").glob("*.xml")))


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


def suites() -> None:
    """The suites that need a real PostgreSQL, on this machine's: run as postgres, who may not read our home.

    For developers. The scenario "suites" runs them with every PostgreSQL of the test hosts.
    """
    install_packages(SUITE_PACKAGES)
    for name in ("wal", "integration"):
        if not (INSTALLED / "tests" / name).is_dir():
            continue
        with step(f"suite {name}") as log:
            base = Path("/var/tmp") / f"dbre-recovery-{hashlib.md5(str(ROOT).encode()).hexdigest()[:6]}"
            log.must(*SUDO, "rm", "-rf", base)
            log.must(*SUDO, "install", "-d", "-o", "postgres", "-m", "0700", base)
            log.must(*SUDO, "cp", "-r", COLLECTIONS, base)
            log.must(*SUDO, "chown", "-R", "postgres:", base)
            tests = base / "collections" / "ansible_collections" / "dbre" / "recovery" / "tests" / name
            env = ("env", f"PYTHONPATH={base}/collections", "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8")
            as_postgres = ("runuser", "-u", "postgres", "--", *env, "sh", "-c", f'cd {base} && exec "$@"', "sh")
            pytest = ("/usr/bin/python3", "-m", "pytest", *PYTEST, "--junitxml", base / "junit.xml", tests)
            ran = log.run(*SUDO, *as_postgres, *pytest)
            report = WORK / "junit" / f"{name}.xml"
            report.parent.mkdir(parents=True, exist_ok=True)
            log.run(*SUDO, "install", "-m", "0644", base / "junit.xml", report)
            log.ok = TALLY.add_junit(ran, report)
            log.must(*SUDO, "rm", "-rf", base)


def molecule(log: Log, verb: str, scenario: str, *options: str, environments: Sequence[Path] = (NEWEST,)) -> bool:
    """Run molecule for one scenario, with a directory of its own for what it remembers."""
    memory = WORK / "molecule" / scenario
    shutil.rmtree(memory, ignore_errors=True)
    env = tool_env(*environments)
    env.update(MOLECULE_EPHEMERAL_DIRECTORY=str(memory), MOLECULE_PROJECT_DIRECTORY=str(ROOT))
    return log.run(NEWEST / "bin" / "molecule", verb, "--scenario-name", scenario, *options, env=env)


def hosts() -> None:
    """Start the test hosts that do not run; their images are built when they are missing."""
    with step("hosts") as log:
        if not molecule(log, "test", "default", "--destroy=never"):
            raise StepFailed("the test hosts did not start")


def scenario_names() -> list[str]:
    return sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml") if path.parent.name != "default")


def run_scenario(name: str, label: str = "molecule", environments: Sequence[Path] = (NEWEST,)) -> None:
    """One scenario; the tests of pytest suites that it ran and whose reports it fetched count too."""
    with step(f"{label} {name}") as log:
        ran = molecule(log, "test", name, "--destroy=never", environments=environments)
        reports = sorted((WORK / "molecule" / name / "junit").glob("**/*.xml"))
        log.ok = TALLY.add_command(ran)
        if reports:
            TALLY.add_junit(True, *reports)


def run_scenarios(names: Sequence[str]) -> None:
    for name in names or scenario_names():
        run_scenario(name)


def run_oldest() -> None:
    """The smoke scenario again with the oldest ansible-core; of its tests the one that goes the whole way."""
    os.environ["DBRE_E2E"] = "every_row_committed"
    if OLDEST_SCENARIO in scenario_names():
        run_scenario(OLDEST_SCENARIO, "oldest core", (OLDEST, NEWEST))


# --- the end ---------------------------------------------------------------------------------------------------------


def remove_hosts() -> None:
    with step("teardown") as log:
        if not molecule(log, "destroy", "default"):
            raise StepFailed("the test hosts could not be removed")


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


def on_this_machine() -> None:
    """All tests that need no test host."""
    lint()
    unit()
    sanity()


def test() -> None:
    """Everything."""
    try:
        # The hosts need a minute of this machine when their images are built, the tools need it at other moments.
        in_parallel(hosts, on_this_machine)
        run_scenarios([])
        run_oldest()
    finally:
        remove_hosts()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps: dict[str, Callable[[], None]] = {
        step.__name__: step for step in (test, lint, sanity, unit, suites, hosts, docs)
    }
    parser.add_argument("step", choices=[*steps, "build", "molecule", "clean"])
    parser.add_argument("scenario", nargs="*", help="for molecule: scenarios to run, all by default")
    arguments = parser.parse_args()
    if arguments.step == "clean":
        clean()
        return 0
    start = time.monotonic()
    try:
        lock_checkout()
        prepare()
        build()
        if arguments.step == "molecule":
            hosts()
            run_scenarios(arguments.scenario)
        elif arguments.step != "build":
            steps[arguments.step]()
    except StepFailed as error:
        print(f"stopped: {error}", flush=True)
        TALLY.add(0, 1)
    if arguments.step in ("build", "hosts", "docs") and not TALLY.failed:
        return 0
    if TALLY.failed_steps:
        print(f"failed: {', '.join(TALLY.failed_steps)}", flush=True)
    print(f"{'total':<31} {time.monotonic() - start:6.1f} s", flush=True)
    print(f"{TALLY.passed} passed, {TALLY.failed} failed", flush=True)
    return 0 if TALLY.passed and not TALLY.failed else 1


if __name__ == "__main__":
    sys.exit(main())
