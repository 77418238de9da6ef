"""What the tests run in: Debian packages, two environments of Python, and the collection, built and installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection
from functools import partial
from pathlib import Path

from jobs import Job, run_jobs
from steps import ROOT, WORK, StepFailed, step

NEWEST = WORK / "newest"
OLDEST = WORK / "oldest"
PYTHONS = WORK / "pythons"
COLLECTIONS = WORK / "collections"
INSTALLED = COLLECTIONS / "ansible_collections" / "dbre" / "recovery"

SUDO = [] if os.geteuid() == 0 else ["sudo"]

PACKAGES = {
    "acl": "an unprivileged login that becomes postgres",
    "debian-archive-keyring": "mmdebstrap of Debian on Ubuntu",
    "git": "the list of the project's files",
    "iptables": "podman's network",
    "mmdebstrap": "images of the test hosts",
    "openssh-client": "the way to the test hosts",
    "pgbackrest": "the production in one folder",
    "pgbouncer": "what its clients wait in",
    "podman": "the test hosts",
    "postgresql": "databases of the emulated RDS",
    "postgresql-common": "no cluster of its own when PostgreSQL is installed",
    "prometheus": "promtool, which tests alert rules",
    "python3-prometheus-client": "the collector of metrics, as on a host",
    "python3-venv": "environments of the newest and the oldest ansible-core",
    "shellcheck": "a test of ansible-test sanity",
    "sudo": "a login that may become postgres and nobody else",
}
# Of these only the programs are wanted: nothing of the packages' own shall listen on this machine.
SERVICES = {"prometheus": ("prometheus", "prometheus-node-exporter"), "pgbouncer": ("pgbouncer",)}


def install_packages(wanted: Collection[str], name: str = "packages") -> None:
    """Install the Debian packages that are missing, in a step of this name."""
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
    with step(name) as log:
        if "postgresql-common" in missing:  # a fresh PostgreSQL would make a cluster of its own
            place = "/etc/postgresql-common"
            write = f"mkdir -p {place} && echo create_main_cluster=false >> {place}/createcluster.conf"
            log.must(*SUDO, "sh", "-c", write)
        for package in SERVICES.keys() & set(missing):
            for unit in SERVICES[package]:
                link = f"/etc/systemd/system/{unit}.service"
                log.must(*SUDO, "sh", "-c", f"mkdir -p {Path(link).parent} && test -e {link} || ln -s /dev/null {link}")
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


def make_environment(path: Path, python: Path) -> None:
    """A virtual environment with its requirements; kept as long as neither they nor the interpreter change."""
    requirements = Path(__file__).parent / f"requirements-{path.name}.txt"
    stamp = path / "made-of"
    wanted = f"{python}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with step(f"environment {path.name}") as log:
        shutil.rmtree(path, ignore_errors=True)
        log.must(python, "-m", "venv", path)
        pip = (path / "bin" / "pip", "install", "--disable-pip-version-check", "--no-compile")
        log.must(*pip, "--requirement", requirements)
        # Not the community's collections, which are most of it: Ansible reads their sources at each start.
        compileall = (path / "bin" / "python", "-m", "compileall", "-q", "-x", "/site-packages/ansible_collections/")
        log.run(*compileall, path / "lib")  # of some packages a file cannot be compiled, as pip knows too
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
    made_of = ((NEWEST, pythons[newest[-1]]), (OLDEST, pythons[able[0]]))
    run_jobs([Job(path.name, partial(make_environment, path, python)) for path, python in made_of], at_once=2)


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


def temporary() -> dict[str, str]:
    """Where tests keep servers that they make and remove: in memory, when there is plenty.

    ext4 without a journal, as on some virtual machines, makes a file ten times slower for minutes after others went.
    """
    place = Path("/dev/shm")
    known = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if not (place.is_dir() and known) or os.statvfs(place).f_flag & os.ST_NOEXEC:
        return {}
    room = min(shutil.disk_usage(place).free, int(known[1]) * 1024)
    return {"TMPDIR": str(place)} if room > 12 << 30 else {}


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
