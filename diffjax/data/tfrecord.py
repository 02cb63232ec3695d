"""TFRecord files without TensorFlow.

A file is a sequence of records, each (all numbers little-endian)

    uint64 length | uint32 masked_crc(length bytes) | payload of `length` bytes | uint32 masked_crc(payload)
    masked_crc = rotate_right_32(crc32c, 15) + 0xa282ead8 mod 2³²

where crc32c is the CRC with Castagnoli's polynomial, reflected: 0x82f63b78. Source: TensorFlow,
core/lib/io/record_writer.h and core/lib/hash/crc32c.h.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from diffjax.errors import InputError

_GROUP_BYTES = 2**25


def masked_crc32c(messages: Sequence[bytes]) -> UInt32[np.ndarray, " n"]:
    """The masked CRCs of n messages, all at once: byte by byte, but vectorised over the messages."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    lengths = np.array([len(message) for message in messages])
    rows = np.zeros((len(messages), lengths.max()), np.uint8)
    for row, message in zip(rows, messages, strict=True):
        row[: len(message)] = np.frombuffer(message, np.uint8)
    crc = np.full(len(messages), 0xFFFFFFFF, np.uint32)
    for i, column in enumerate(np.ascontiguousarray(rows.T)):
        crc = np.where(i < lengths, table[(crc ^ column) & 0xFF] ^ crc >> 8, crc)
    crc = ~crc
    return (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)


def read_records(path: Path) -> Iterator[list[bytes]]:
    """The payloads of a TFRecord file in order, in groups of about 32 MB, lengths and contents verified.

    Raises `InputError` if the file is cut short or a checksum is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            lengths: list[bytes] = []
            payloads: list[bytes] = []
            sums: list[tuple[int, int]] = []
            longest = 0
            while file.tell() < size and longest * len(payloads) < _GROUP_BYTES:
                start = file.tell()
                header = file.read(12)
                length = int.from_bytes(header[:8], "little")
                if len(header) < 12 or length + 4 > size - file.tell():
                    raise InputError(f"{path} is cut short or damaged at byte {start}: copy or prepare it again.")
                lengths.append(header[:8])
                payloads.append(file.read(length))
                sums.append((int.from_bytes(header[8:], "little"), int.from_bytes(file.read(4), "little")))
                longest = max(longest, length)
            expected = np.stack([masked_crc32c(lengths), masked_crc32c(payloads)], axis=1)
            if (expected != np.array(sums, np.uint32)).any():
                raise InputError(f"{path} is damaged, a checksum is wrong before byte {file.tell()}: copy it again.")
            yield payloads
