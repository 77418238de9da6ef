# Installs what the demo and the benchmark need and this machine lacks. Sourced; sets $root (the checkout) and $python.
# Packages are looked at first: where all are there, neither apt-get nor sudo is called.
# shellcheck shell=sh

root=$(cd "$(dirname "$0")/../.." && pwd)
[ -f "$root/playbooks/demo.yml" ] || root=$(cd "$(dirname "$0")/.." && pwd)
python=/usr/bin/python3
venv="$root/.work/demo-venv"
collections="$root/.work/demo-collections"

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

missing_packages() {
    set -- /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb
    { [ -x "$1" ] || [ -x "$2" ]; } || echo postgresql
    command -v pgbackrest >/dev/null || echo pgbackrest
    "$python" -c 'import psycopg2' 2>/dev/null || echo python3-psycopg2
    "$python" -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

install_packages() {
    command -v apt-get >/dev/null || fail "Missing here: $*. Install what carries these names on your system and run this again."
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "Missing here: $*. Install them as root (apt-get install $*) and run this again."
        sudo=sudo
    fi
    # A server package makes a cluster of its own when it is first installed; nobody asked for one.
    quiet=/etc/postgresql-common/createcluster.d/dbre-recovery-demo.conf
    $sudo mkdir -p "${quiet%/*}"
    echo "create_main_cluster = false" | $sudo tee "$quiet" >/dev/null
    log=$(mktemp)
    if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1
    then
        $sudo rm -f "$quiet"
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: $*"
    fi
    $sudo rm -f "$quiet"
    rm -f "$log"
}

prepare() {
    installed=
    # shellcheck disable=SC2046  # one word a package
    set -- $(missing_packages)
    if [ $# -gt 0 ]; then
        install_packages "$@"
        installed="$*"
    fi
    if ! "$venv/bin/ansible-playbook" --version >/dev/null 2>&1; then
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail \
            "ansible-core 2.17 needs Python 3.10 or later; $python is $("$python" --version). Run this on Debian 12, Ubuntu 22.04 or later."
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check 'ansible-core>=2.17' 2>"$venv/pip.log" ||
            fail "pip could not install ansible-core:" "$(tail -n 5 "$venv/pip.log")"
        installed="${installed:+$installed }ansible-core"
    fi
    mkdir -p "$collections/ansible_collections/dbre"
    ln -sfn "$root" "$collections/ansible_collections/dbre/recovery"
    # What the visitor has set for playbooks of their own leads ours nowhere else.
    for name in $(env | sed -n 's/^\(ANSIBLE_[A-Z0-9_]*\|PG[A-Z]*\)=.*/\1/p'); do
        unset "$name"
    done
    export ANSIBLE_COLLECTIONS_PATH="$collections" ANSIBLE_CONFIG="$root/examples/ansible.cfg" ANSIBLE_HOME="$venv/ansible"
}

unprepare() {
    rm -rf "$venv" "$collections"
    rmdir "$root/.work" 2>/dev/null || true
}
