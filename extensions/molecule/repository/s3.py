"""moto's S3 server, which keeps everything in memory, over TLS and behind a web server that ends connections properly.

s3.py ADDRESS PORT CERTIFICATE KEY
"""

from __future__ import annotations

import sys

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from moto.server import DomainDispatcherApplication, create_backend_app


def main(address: str, port: int, certificate: str, key: str) -> None:
    server = Server((address, port), DomainDispatcherApplication(create_backend_app), numthreads=8)
    server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    server.start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
