"""Command line: ``python -m emulated_rds --port 5555 --state DIR``; ``--clean`` stops it and leaves nothing."""

from __future__ import annotations

import argparse
import os
import pwd
from pathlib import Path

from .postgres import Programs
from .server import clean, serve


def newest_bin_dir() -> Path:
    """Debian's layout."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if not found:
        raise SystemExit("no PostgreSQL below /usr/lib/postgresql: install the package postgresql, or give --bin-dir")
    return max(found, key=lambda path: int(path.parent.name))


def main() -> None:
    parser = argparse.ArgumentParser(prog="emulated_rds", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory for everything it makes")
    parser.add_argument("--port", type=int, default=5555, help="port of the API, on 127.0.0.1")
    parser.add_argument("--bin-dir", type=Path, help="PostgreSQL's programs (default: Debian's newest)")
    parser.add_argument("--lag", type=float, default=0.5, help="seconds that each status lasts at least")
    parser.add_argument(
        "--restorable-lag", type=float, default=2, help="seconds that LatestRestorableTime is behind (AWS: about 300)"
    )
    parser.add_argument("--clean", action="store_true", help="stop the emulator of --state and delete the directory")
    arguments = parser.parse_args()
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    programs = Programs(arguments.bin_dir or newest_bin_dir(), user)
    state = arguments.state.resolve()
    if arguments.clean:
        clean(programs, state)
    else:
        serve(programs, state, arguments.port, arguments.lag, arguments.restorable_lag)


if __name__ == "__main__":
    main()
