# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack page images in WAL, in each of the formats that wal_compression writes."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import socket
from typing import Any


class Damaged(Exception):
    """Bytes that are no WAL of the expected shape."""


class Unavailable(Exception):
    """A compressed page image that cannot be unpacked on this host."""


@functools.cache
def _libzstd() -> Any:
    """The library that a server with wal_compression=zstd is linked to; None where there is none."""
    for name in ("libzstd.so.1", ctypes.util.find_library("zstd")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            library.ZSTD_decompress.restype = ctypes.c_size_t
            library.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
            library.ZSTD_isError.restype = ctypes.c_uint
            library.ZSTD_isError.argtypes = [ctypes.c_size_t]
            return library
    return None


def zstd_decompress(data: bytes, size: int) -> bytes:
    """Decompress a Zstandard frame to exactly ``size`` bytes; Unavailable on a host without its library."""
    library = _libzstd()
    if library is None:
        raise Unavailable(
            "the page image is compressed with zstd (wal_compression=zstd), and the library libzstd.so.1 is not on "
            f"{socket.gethostname()}, where it would be installed by: apt install libzstd1"
        )
    out = ctypes.create_string_buffer(size)
    written = library.ZSTD_decompress(out, size, data, len(data))
    if library.ZSTD_isError(written) or written != size:
        raise Damaged("a page image compressed with zstd cannot be unpacked")
    return out.raw


def _copy_back(out: bytearray, distance: int, length: int) -> None:
    """Append ``length`` bytes that begin ``distance`` bytes before the end; the two may overlap."""
    if not 0 < distance <= len(out):
        raise Damaged("a compressed page image refers to bytes before its beginning")
    start = len(out) - distance
    if length <= distance:
        out += out[start : start + length]
        return
    pattern = bytes(out[start:])
    out += (pattern * (length // distance + 1))[:length]


def pglz_decompress(data: bytes, size: int) -> bytes:
    """Decompress PostgreSQL's own format (src/common/pg_lzcompress.c) to exactly ``size`` bytes.

    A control byte, lowest bit first, says of each of the eight items after it whether it is a literal byte (0) or a
    tag (1): four bits of length minus three, twelve of distance; length 18 is followed by a byte to add.
    """
    out = bytearray()
    at = 0
    try:
        while at < len(data) and len(out) < size:
            control = data[at]
            at += 1
            for bit in range(8):
                if at >= len(data) or len(out) >= size:
                    break
                if not control >> bit & 1:
                    out.append(data[at])
                    at += 1
                    continue
                length = (data[at] & 0x0F) + 3
                distance = (data[at] & 0xF0) << 4 | data[at + 1]
                at += 2
                if length == 18:
                    length += data[at]
                    at += 1
                _copy_back(out, distance, min(length, size - len(out)))
    except IndexError:
        raise Damaged("a compressed page image ends too early") from None
    if len(out) != size or at != len(data):
        raise Damaged("a compressed page image has another size than its header says")
    return bytes(out)


def lz4_decompress(data: bytes, size: int) -> bytes:
    """Decompress one LZ4 block (lz4/doc/lz4_Block_format.md) to exactly ``size`` bytes."""

    def length_after(at: int, length: int) -> tuple[int, int]:
        if length == 15:
            while True:
                length += data[at]
                at += 1
                if data[at - 1] != 255:
                    break
        return length, at

    out = bytearray()
    at = 0
    try:
        while at < len(data):
            token = data[at]
            literals, at = length_after(at + 1, token >> 4)
            out += data[at : at + literals]
            at += literals
            if at >= len(data):
                break
            distance = data[at] | data[at + 1] << 8
            length, at = length_after(at + 2, token & 0x0F)
            _copy_back(out, distance, length + 4)
    except IndexError:
        raise Damaged("a compressed page image ends too early") from None
    if len(out) != size:
        raise Damaged("a compressed page image has another size than its header says")
    return bytes(out)
