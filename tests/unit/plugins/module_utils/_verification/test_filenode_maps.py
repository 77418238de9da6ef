"""Maps of the catalogue's files: sound ones, and what a disk may have made of them."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._verification.filenode_maps import crc32c, is_sound


def made(mappings: int, end: bytes) -> bytes:
    """A map as PostgreSQL writes it: before 16 there were 62 mappings and four bytes at the end."""
    body = struct.pack("<Ii", 0x592717, 2) + struct.pack("<IIII", 1259, 1259, 1249, 16390)
    body = body.ljust(8 + 8 * mappings, b"\0")
    return body + struct.pack("<I", crc32c(body)) + end


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(("mappings", "end"), [(62, b"\0\0\0\0"), (64, b"")])
def test_one_bit_of_a_map_counts(mappings: int, end: bytes) -> None:
    sound = made(mappings, end)
    assert is_sound(sound)
    assert not is_sound(sound[:12] + bytes([sound[12] ^ 1]) + sound[13:])
    assert not is_sound(sound[:400])
    assert not is_sound(bytes(len(sound)))
