"""What small files that are made to cost much do cost in the decoder: seconds and megabytes, each in a fresh process.

    python -m benchmarks.hostile_files

Every line is one file: its size, the processor seconds of the second decoding (the first one also pays for imports
that happen once), the growth of the process's peak memory, and how it was answered.
"""

import argparse
import multiprocessing
import resource
import struct
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np

from cxr.imaging.radiograph import ImageError, decode_radiograph

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import radiographs as files

MAX_SECONDS = 0.2
MAX_MEGABYTES = 50


def deflated(num_megabytes: int) -> bytes:
    """Return a DICOM whose deflated part expands a thousandfold."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(num_megabytes)) + packer.flush()
    return files.dicom_start("1.2.840.10008.1.2.1.99") + packed


def nested(depth: int) -> bytes:
    """Return a DICOM of sequences in sequences."""
    opening = files.element((8, 0x1140), b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return files.dicom_start() + opening * depth


def many_scans(side: int, num_scans: int) -> bytes:
    """Return a progressive JPEG that repeats its last pass over side x side pixels."""
    data = files.pillow_bytes(np.zeros((side, side), np.uint8), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * num_scans + b"\xff\xd9"


def attacks() -> dict[str, bytes]:
    """Return the files by name."""
    picture, text = files.radiograph(), zlib.compress(bytes(50_000_000))
    tiny = files.dicom_start() + b"".join(files.element((9, k % 65536), b"LO", b"") for k in range(180_000))
    rle = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 2_000_000
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 3_750_000
    sequence = files.dicom_start() + files.element((8, 0x1140), b"SQ", b"", 0xFFFFFFFF)
    return {
        "PNG 30,000 x 30,000": files.png_of_zeros(30_000, 30_000),
        "PNG of 88 megapixels": files.png_of_zeros(9_381, 9_381),
        "PNG with two 50 MB text bombs": files.png(
            picture, before=files.chunk(b"zTXt", b"a\0\0" + text) + files.chunk(b"iCCP", b"a\0\0" + text)
        ),
        "PNG of 200,000 tiny chunks": files.png(picture, before=files.chunk(b"tEXt", b"a\0b") * 200_000),
        "JPEG of 25 megapixels, 1,006 scans": many_scans(5_000, 1_006),
        "JPEG of 10,000 scans": files.jpeg_with_scans(10_000),
        "JPEG of 100,000 fill bytes": b"\xff\xd8" + b"\xff" * 100_000,
        "DICOM, deflated, 1 GB": deflated(1_000),
        "DICOM, 400 nested sequences": nested(400),
        "DICOM, 100,000 nested sequences": nested(100_000),
        "DICOM, 180,000 tiny elements": tiny,
        "DICOM, 3,750,000 empty items": sequence + items,
        "DICOM of 65,535 x 65,535": files.dicom(picture, Rows=65_535, Columns=65_535),
        "DICOM of 100,000 frames": files.dicom(picture, NumberOfFrames=100_000),
        "DICOM, RLE bomb of 256 MB": files.dicom_encapsulated(rle, picture, 8, files.RLE),
        "DICOM, JPEG 2000 of 1.3 million parts": files.dicom_encapsulated(
            files.j2k_of_tiny_precincts(2000), np.zeros((2000, 2000), np.uint8), 8, files.JPEG_2000
        ),
    }


def measure(data: bytes) -> tuple[str, float, float]:
    """Decode twice; return the answer, the second decoding's processor seconds, and the growth of the peak in MB."""
    cv2.setNumThreads(1)
    decode_radiograph(files.png(files.radiograph()))  # what every process pays once
    decode_radiograph(files.dicom(files.radiograph()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        start = time.process_time()
        try:
            decode_radiograph(data)
            answer = "decoded"
        except ImageError as error:
            answer = error.code
        seconds = time.process_time() - start
    return answer, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> int:
    """Print the table; return 1 where a file costs more than the limits."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    context = multiprocessing.get_context("spawn")
    failed = 0
    for name, data in attacks().items():
        with context.Pool(1) as pool:
            answer, seconds, megabytes = pool.apply(measure, (data,))
        failed += seconds > MAX_SECONDS or megabytes > MAX_MEGABYTES
        print(f"{name:<38}{len(data) / 1e6:>8.3f} MB{seconds:>9.4f} s{megabytes:>8.1f} MB  {answer}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
