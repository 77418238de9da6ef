"""The real servers' log files, as RDS lists and downloads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from . import rules
from .core import Core

LINES = 1000  # what one call returns at most, as AWS's default


class Logs(Core):
    """The actions on log files; their names are ``error/postgresql.log.2026-11-25-11``."""

    def describe_db_log_files(
        self,
        db_instance_identifier: str,
        filename_contains: Optional[str] = None,
        file_last_written: Optional[int] = None,
        file_size: Optional[int] = None,
        **_: Any,
    ) -> list[dict[str, Any]]:
        instance = self._instance(db_instance_identifier)
        described = []
        for path in sorted(instance.server.logs.glob("postgresql.log.*")):
            found = path.stat()
            written = int(found.st_mtime * 1000)
            if (
                (filename_contains or "") in f"error/{path.name}"
                and written >= (file_last_written or 0)
                and found.st_size >= (file_size or 0)
            ):
                described.append({"LogFileName": f"error/{path.name}", "LastWritten": written, "Size": found.st_size})
        return described

    def download_db_log_file_portion(
        self,
        db_instance_identifier: str,
        log_file_name: str,
        marker: Optional[str] = None,
        number_of_lines: Optional[int] = None,
        **_: Any,
    ) -> dict[str, Any]:
        """From the marker (``"0"``: the beginning; none: the last lines), whole lines, and whether there are more."""
        instance = self._instance(db_instance_identifier)
        path = instance.server.logs / Path(log_file_name).name
        if log_file_name != f"error/{path.name}" or not path.exists():
            raise rules.Refused(
                "DBLogFileNotFoundFault", f"DBLog File: {log_file_name}, is not found on the DB instance"
            )
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        wanted = number_of_lines or LINES
        start = max(0, len(lines) - wanted) if marker is None else int(marker.rpartition(":")[2])
        end = min(len(lines), start + wanted)
        portion = "".join(lines[start:end])
        return {"LogFileData": portion, "Marker": f"{path.name}:{end}", "AdditionalDataPending": end < len(lines)}
