"""Build test files: PNGs, JPEGs and DICOMs of every kind, broken ones and bombs, from arrays. Nothing is stored.

The PNG and lossless JPEG writers are written out from the standards, so that they are independent of the decoders.
"""

import io
import struct
import zlib
from itertools import pairwise

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
RLE, JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000, JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"


def radiograph(height: int = 96, width: int = 80, seed: int = 0) -> np.ndarray:
    """Return a smooth uint8 picture over the full range, with no symmetry that would hide a turn."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    smooth += np.linspace(0, 0.3, width)[None, :] + np.linspace(0, 0.2, height)[:, None] ** 2
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(smooth * 255).astype(np.uint8)


def ramp(bits: int) -> np.ndarray:
    """Return every value of `bits` bits, in order, as often as it fits: uint16 (256, 256)."""
    return np.resize(np.arange(2**bits, dtype=np.uint16), (256, 256))


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, colour_type: int = GREY) -> bytes:
    return PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))


def png_rows(samples: np.ndarray, depth: int) -> bytes:
    """Pack samples (h, w) or (h, w, c) into PNG rows with filter 0."""
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        rows = flat.astype(">u2").tobytes()
    elif depth == 8:
        rows = flat.astype(np.uint8).tobytes()
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1).tobytes()
    rows = np.frombuffer(rows, np.uint8).reshape(len(flat), -1)
    return np.pad(rows, ((0, 0), (1, 0))).tobytes()


def png(samples: np.ndarray, depth: int = 8, colour_type: int = GREY, before: bytes = b"", num_idat: int = 3) -> bytes:
    """Write a PNG with the chunks `before` in front of the pixels, which are spread over several IDAT chunks."""
    packed = zlib.compress(png_rows(samples, depth))
    cuts = np.linspace(0, len(packed), num_idat + 1).astype(int)
    pixels = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts))
    return png_header(samples.shape[1], samples.shape[0], depth, colour_type) + before + pixels + chunk(b"IEND")


def png_of_zeros(width: int, height: int) -> bytes:
    """Write a real, complete grey PNG of any size in little memory."""
    packer, row = zlib.compressobj(1), bytes(width + 1)
    packed = b"".join([packer.compress(row * 64) for _ in range(height // 64)]) + packer.compress(row * (height % 64))
    return png_header(width, height) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND")


def pillow_bytes(samples: np.ndarray, file_format: str = "JPEG", mode: str | None = None, **options) -> bytes:
    picture = Image.fromarray(samples)
    buffer = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(buffer, file_format, **options)
    return buffer.getvalue()


def exif_block(orientation: int, order: str = "<") -> bytes:
    """Return a TIFF header with one directory that holds the orientation."""
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with_scans(num_scans: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    data = pillow_bytes(radiograph(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * num_scans + b"\xff\xd9"


def jpeg_lossless(samples: np.ndarray, bits: int) -> bytes:
    """Write a lossless JPEG (ITU-T T.81, Annex H, predictor 1) with 5-bit codes for the 17 difference categories."""
    values = samples.astype(np.int64)
    differences = np.diff(values, axis=1, prepend=np.roll(values[:, :1], 1, axis=0))
    differences[0, 0] = values[0, 0] - 2 ** (bits - 1)
    coded = []
    for difference in ((differences + 32768) % 65536 - 32768).ravel().tolist():
        size = abs(difference).bit_length()
        low = difference if difference >= 0 else difference + 2**size - 1
        coded.append(f"{size:05b}" + (f"{low:0{size}b}" if size and size < 16 else ""))
    text = "".join(coded)
    text += "1" * (-len(text) % 8)
    body = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = jpeg_segment(0xC3, struct.pack(">BHHBBBB", bits, *samples.shape, 1, 1, 0x11, 0))
    huffman = jpeg_segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]))
    scan = jpeg_segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return b"\xff\xd8" + frame + huffman + scan + body + b"\xff\xd9"


def dicom_dataset(samples: np.ndarray, bits: int = 8, signed: bool = False, syntax: str = EXPLICIT, **tags) -> Dataset:
    """Return a chest radiograph's dataset; `tags` are keywords that replace or add elements, None removes one."""
    allocated = 8 if bits <= 8 else 16
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = samples.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    pixels = samples.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    dataset.add_new("PixelData", "OB" if allocated == 8 else "OW", pixels + b"\x00" * (len(pixels) % 2))
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def dicom(samples: np.ndarray, bits: int = 8, signed: bool = False, syntax: str = EXPLICIT, **tags) -> bytes:
    return dicom_bytes(dicom_dataset(samples, bits, signed, syntax, **tags))


def dicom_compressed(samples: np.ndarray, bits: int, syntax: str, **tags) -> bytes:
    """Write a compressed DICOM by one of pydicom's encoders (RLE, JPEG-LS, JPEG 2000)."""
    dataset = dicom_dataset(samples, bits, **tags)
    dataset.compress(syntax, generate_instance_uid=False)
    return dicom_bytes(dataset)


def dicom_encapsulated(frame: bytes, samples: np.ndarray, bits: int, syntax: str, **tags) -> bytes:
    """Write a DICOM around a codestream made elsewhere."""
    dataset = dicom_dataset(samples, bits, syntax=syntax, **tags)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dicom_bytes(dataset)


def element(tag: tuple[int, int], vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return one explicit little-endian element; `length` lies about the size of its value."""
    length = len(value) if length is None else length
    long_form = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    size = struct.pack("<HI", 0, length) if long_form else struct.pack("<H", length)
    return struct.pack("<HH2s", *tag, vr) + size + value


def dicom_start(syntax: str | None = EXPLICIT, preamble: bytes = bytes(128)) -> bytes:
    """Return preamble, magic and a group 2 that names the transfer syntax, or none."""
    uid = b"" if syntax is None else syntax.encode() + b"\x00" * (len(syntax) % 2)
    meta = element((2, 1), b"OB", b"\x00\x01") + (element((2, 0x10), b"UI", uid) if uid else b"")
    return preamble + b"DICM" + element((2, 0), b"UL", struct.pack("<I", len(meta))) + meta


def j2k_of_tiny_precincts(side: int, levels: int = 5, precinct: int = 1, layers: int = 1, tile: int = 0) -> bytes:
    """Return a JPEG 2000 codestream of a few hundred bytes whose header asks for precincts of 2**precinct samples."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    tile = tile or side
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, 1) + bytes([7, 1, 1])
    coding = bytes([1, 0]) + struct.pack(">H", layers) + bytes([0, levels, 0, 0, 0, 1])
    coding += bytes([precinct | precinct << 4] * (levels + 1))
    steps = bytes([0x40]) + bytes([8 << 3] * (3 * levels + 1))
    data = bytes(100)
    tile_part = segment(0xFF90, struct.pack(">HIBB", 0, 14 + len(data), 0, 1)) + b"\xff\x93" + data
    return (
        b"\xff\x4f" + segment(0xFF51, size) + segment(0xFF52, coding) + segment(0xFF5C, steps) + tile_part + b"\xff\xd9"
    )
