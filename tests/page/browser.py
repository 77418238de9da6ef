# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser without a screen, told what to do over a pipe in the DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

NAMES = ("chromium", "google-chrome")
# As root there is no sandbox, and small machines have little shared memory. It shows our own pages only.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)


class Browser:
    """One process of the browser, with one page; ``profile`` is an empty directory that it may write into."""

    def __init__(self, profile: Path) -> None:
        program = next(filter(None, map(shutil.which, NAMES)))
        child_reads, self._to = os.pipe()
        self._from, child_writes = os.pipe()
        # Numbers that are not those they get in the browser, which reads from 3 and writes to 4.
        reads, writes = (fcntl.fcntl(number, fcntl.F_DUPFD, 20) for number in (child_reads, child_writes))

        def take() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        self._process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=take,
            pass_fds=(3, 4),
        )
        for number in (child_reads, child_writes, reads, writes):
            os.close(number)
        self._said = b""
        self._number = 0
        self._session: Optional[str] = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=60)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to one command."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._to, json.dumps(asked).encode() + b"\0")
        answer = self._read_until("id", self._number)
        assert "error" not in answer, answer
        return answer["result"]

    def _read_until(self, key: str, value: Any) -> dict[str, Any]:
        while True:
            while b"\0" not in self._said:
                more = os.read(self._from, 1 << 20)
                assert more, "the browser has ended"
                self._said += more
            said, _end, self._said = self._said.partition(b"\0")
            answer: dict[str, Any] = json.loads(said)
            if answer.get(key) == value:
                return answer

    def show(self, page: Path, width: int, dark: bool = False) -> None:
        """Load a page into a window of ``width`` CSS pixels, a phone's where that is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._number += 1
        asked = {"id": self._number, "method": "Page.navigate", "params": {"url": page.as_uri()}}
        os.write(self._to, json.dumps({**asked, "sessionId": self._session}).encode() + b"\0")
        self._read_until("method", "Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, file: Path) -> None:
        """Write the page as it is shown, from its top to its end."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(taken["data"]))

    def printed(self, file: Path) -> None:
        """Print the page on A4, as people do who change nothing in the dialogue."""
        done = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        file.write_bytes(base64.b64decode(done["data"]))
