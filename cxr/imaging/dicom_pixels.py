"""DICOM pixel data: the stored samples of one grey picture, native or compressed.

Compressed data is decoded by pydicom with one fixed plugin per kind, so that every machine gives the same samples.
What a codestream declares must agree with the header before a decoder sees it: decoders allocate by the codestream.
Source: DICOM PS3.5 sections 8.1 and 8.2, Annex A.4 and Annex G (RLE); ITU-T T.800 Annex A (JPEG 2000).
"""

import struct
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from cxr.imaging.dicom_header import EXPLICIT_LITTLE, IMPLICIT_LITTLE, PixelHeader, attempt, header_fault, raw_value
from cxr.imaging.jpeg import BASELINE, EXTENDED, JPEG_LS, LOSSLESS, inspect_jpeg
from cxr.imaging.limits import ImageError


@dataclass(frozen=True)
class Compression:
    """A kind of compression: its name for users, pydicom's plugin for it, the JPEG frames it may consist of."""

    name: str
    plugin: str
    frames: tuple[int, ...] = ()


RLE = Compression("RLE", "pydicom")
JPEG_2000 = Compression("JPEG 2000", "pylibjpeg")
NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
COMPRESSIONS = {  # transfer syntax UID -> compression
    "1.2.840.10008.1.2.5": RLE,
    "1.2.840.10008.1.2.4.50": Compression("JPEG baseline", "pillow", (BASELINE,)),
    "1.2.840.10008.1.2.4.51": Compression("JPEG extended", "pillow", (BASELINE, EXTENDED)),
    "1.2.840.10008.1.2.4.57": Compression("JPEG lossless", "pylibjpeg", (LOSSLESS,)),
    "1.2.840.10008.1.2.4.70": Compression("JPEG lossless", "pylibjpeg", (LOSSLESS,)),
    "1.2.840.10008.1.2.4.80": Compression("JPEG-LS", "pyjpegls", (JPEG_LS,)),
    "1.2.840.10008.1.2.4.81": Compression("JPEG-LS", "pyjpegls", (JPEG_LS,)),
    "1.2.840.10008.1.2.4.90": JPEG_2000,
    "1.2.840.10008.1.2.4.91": JPEG_2000,
}
EXTENDED_12_BIT = Compression("12-bit JPEG extended", "pylibjpeg", (EXTENDED,))  # beyond Pillow

OVERLAY_BIT_POSITION = 0x60000102  # present where an overlay is kept in unused bits of the samples
MAX_J2K_TILES = 65_535  # ITU-T T.800, A.4.2
ENCAPSULATION_MARGIN = 2  # bytes: each item is padded to an even length


def check_transfer_syntax(syntax: str) -> None:
    """Refuse encodings that are not read: deflated (a bomb), video, big endian, private and unknown ones.

    Raises: ImageError dicom_compression.
    """
    if syntax not in NATIVE and syntax not in COMPRESSIONS:
        message = "This DICOM file is encoded in a way that is not supported. Export it uncompressed or as JPEG 2000."
        raise ImageError("dicom_compression", message)
    if syntax in COMPRESSIONS:
        _check_plugin(syntax, COMPRESSIONS[syntax])


def read_samples(dataset: Dataset, header: PixelHeader, syntax: str) -> np.ndarray:
    """Return the stored samples as integers, (rows, columns), all between header.lowest and header.highest.

    Raises: ImageError.
    """
    pixel_data = raw_value(dataset, "PixelData")
    if not isinstance(pixel_data, bytes):
        raise header_fault("Pixel Data is malformed")
    if syntax in NATIVE:
        return _native_samples(pixel_data, header, overlays_inside=OVERLAY_BIT_POSITION in dataset)
    frame = attempt(get_frame, pixel_data, 0, number_of_frames=1)
    if not frame:
        raise _damaged()
    plugin = _check_codestream(frame, header, syntax)
    decoded = attempt(
        get_decoder(syntax).as_array,
        pixel_data,
        index=0,
        decoding_plugin=plugin,
        rows=header.rows,
        columns=header.columns,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
        pixel_representation=int(header.signed),
        correct_unused_bits=header.signed,  # for unsigned samples it would wrap what a lossy codec overshoots
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        pixel_keyword="PixelData",
    )
    if decoded is None or decoded[0].shape != (header.rows, header.columns):
        raise _damaged()
    return np.clip(decoded[0], header.lowest, header.highest)


def _native_samples(pixel_data: bytes, header: PixelHeader, overlays_inside: bool) -> np.ndarray:
    """Cut Bits Stored out of each word; samples beyond them are an error where no overlay explains them."""
    num_samples = header.rows * header.columns
    if len(pixel_data) < num_samples * header.bits_allocated // 8:
        raise ImageError("damaged", "This DICOM file is cut short: its pixels are not all there. Copy it again.")
    words = np.frombuffer(pixel_data, f"<u{header.bits_allocated // 8}", num_samples).reshape(
        header.rows, header.columns
    )
    below = header.high_bit + 1 - header.bits_stored
    above = header.bits_allocated - header.high_bit - 1
    if header.signed:
        return (words << above).view(f"<i{header.bits_allocated // 8}") >> (above + below)
    samples = words >> below
    if samples.max() > header.highest:
        if not overlays_inside:
            raise header_fault("its pixels need more bits than Bits Stored")
        samples = samples & header.highest
    return samples


def _check_codestream(frame: bytes, header: PixelHeader, syntax: str) -> str:
    """Compare what a compressed picture declares with the header; return the plugin that decodes it."""
    compression = COMPRESSIONS[syntax]
    if compression is RLE:
        _check_rle(frame, header)
    elif compression is JPEG_2000:
        _check_jpeg_2000(frame, header)
    else:
        jpeg = inspect_jpeg(frame)
        declared = (jpeg.height, jpeg.width, jpeg.components)
        if declared != (header.rows, header.columns, 1) or jpeg.frame not in compression.frames:
            raise header_fault("it and the compressed picture disagree")
        if jpeg.precision > header.bits_allocated:
            raise header_fault("it and the compressed picture disagree")
        if jpeg.precision > 8 and compression.plugin == "pillow":
            compression = EXTENDED_12_BIT
            _check_plugin(syntax, compression)
    return compression.plugin


def _check_rle(frame: bytes, header: PixelHeader) -> None:
    """Add up what the RLE segments expand to (PS3.5 G.3), so that nothing expands without bound."""
    num_segments = header.bits_allocated // 8
    if len(frame) < 64 or struct.unpack_from("<I", frame)[0] != num_segments:
        raise header_fault("it and the compressed picture disagree")
    offsets = struct.unpack_from(f"<{num_segments}I", frame, 4)
    expected = header.rows * header.columns
    for start, end in zip(offsets, (*offsets[1:], len(frame)), strict=True):
        if end - start > 2 * expected + ENCAPSULATION_MARGIN:  # longer than a picture of single samples
            raise _damaged()
        expanded, position = 0, start
        while position < end <= len(frame) and expanded < expected:
            control = frame[position]
            literal = control < 128
            position += control + 2 if literal else 2
            expanded += control + 1 if literal else (257 - control if control > 128 else -1)
            if control == 128:
                expanded, position = expanded + 1, position - 1
        if expanded != expected or end < position or end - position > ENCAPSULATION_MARGIN:
            raise _damaged()


def _check_jpeg_2000(frame: bytes, header: PixelHeader) -> None:
    """Compare the SIZ marker of a JPEG 2000 codestream (T.800 A.5.1) with the header, and ask for its end marker."""
    if len(frame) < 45 or not frame.startswith(b"\xff\x4f\xff\x51") or not frame.rstrip(b"\x00").endswith(b"\xff\xd9"):
        raise _damaged()
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", frame, 8)
    components, depth = struct.unpack_from(">HB", frame, 40)
    precision = (depth & 0x7F) + 1
    if (bottom - top, right - left, components) != (
        header.rows,
        header.columns,
        1,
    ) or precision > header.bits_allocated:
        raise header_fault("it and the compressed picture disagree")
    if not tile_width or not tile_height:
        raise _damaged()
    tiles = -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height)
    if tiles > MAX_J2K_TILES:
        raise _damaged()


def _check_plugin(syntax: str, compression: Compression) -> None:
    if compression.plugin not in get_decoder(syntax).available_plugins:
        message = f"This DICOM file is compressed with {compression.name}, which is not supported here."
        raise ImageError("dicom_compression", f"{message} Export it uncompressed or as JPEG 2000.")


def _damaged() -> ImageError:
    return ImageError("damaged", "The compressed pixels of this DICOM file are damaged. Export or copy it again.")
