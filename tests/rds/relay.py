# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name for a database that leads where the test says, as a CNAME does, and for a while any name of DNS."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator


class Relay(socketserver.ThreadingTCPServer):
    """A port whose connections are handed on, each to where the name leads when it begins."""

    daemon_threads = True

    def __init__(self, lead: Callable[[], str], place_of: Callable[[str], tuple[str, int]]) -> None:
        self.lead, self.place_of = lead, place_of
        self.led: list[str] = []  # where it has led, in order
        super().__init__(("127.0.0.1", 0), HandOn)
        self.host, self.port = "127.0.0.1", int(self.server_address[1])


class HandOn(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        try:
            name = self.server.lead()
            there = socket.create_connection(self.server.place_of(name), 10)
        except Exception:  # nobody is there, or has the name, at the moment: the connection just ends
            return
        self.server.led.append(name)
        with there:
            there.settimeout(None)
            back = threading.Thread(target=hand_on, args=(there, self.request), daemon=True)
            back.start()
            hand_on(self.request, there)
            back.join()


def hand_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relay(lead: Callable[[], str], place_of: Callable[[str], tuple[str, int]]) -> Iterator[Relay]:
    with Relay(lead, place_of) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
