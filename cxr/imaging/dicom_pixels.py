"""DICOM pixel data: the stored samples of one grey picture, native or compressed.

Compressed data is decoded by one fixed decoder per kind, so that every machine gives the same samples: 8-bit JPEG as
JPEG files are, the rest by a plugin of pydicom. What a codestream declares must agree with the header before a decoder
sees it: decoders allocate by the codestream. Damage that a decoder would pass over is looked for here.
Source: DICOM PS3.5 sections 8.1 and 8.2, Annex A.4 and Annex G (RLE).
"""

import struct
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

from cxr.imaging.dicom_header import EXPLICIT_LITTLE, IMPLICIT_LITTLE, PixelHeader, attempt, header_fault, raw_value
from cxr.imaging.jpeg import (
    BASELINE,
    EXTENDED,
    JPEG_LS,
    LOSSLESS,
    JpegFile,
    check_jpeg_2000_parts,
    claiming_predictable_ends,
    decode_scans,
    inspect_jpeg,
    read_jpeg_2000_size,
)
from cxr.imaging.limits import ImageError
from cxr.system.openjpeg import largest_misfit


@dataclass(frozen=True)
class Compression:
    """A kind of compression.

    Attributes:
        name: for users.
        plugin: of pydicom; "" where none is needed.
        frames: start-of-frame markers of the JPEG streams that it may consist of.
        lossy: whether decoded samples may overshoot the range of the original.
    """

    name: str
    plugin: str
    frames: tuple[int, ...] = ()
    lossy: bool = False


RLE = Compression("RLE", "pydicom")
JPEG_2000 = Compression("JPEG 2000", "pylibjpeg")
JPEG_2000_LOSSY = Compression("JPEG 2000", "pylibjpeg", lossy=True)
NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
COMPRESSIONS = {  # transfer syntax UID -> compression
    "1.2.840.10008.1.2.5": RLE,
    "1.2.840.10008.1.2.4.50": Compression("JPEG baseline", "", (BASELINE,), lossy=True),
    "1.2.840.10008.1.2.4.51": Compression("JPEG extended", "", (BASELINE, EXTENDED), lossy=True),
    "1.2.840.10008.1.2.4.57": Compression("JPEG lossless", "pylibjpeg", (LOSSLESS,)),
    "1.2.840.10008.1.2.4.70": Compression("JPEG lossless", "pylibjpeg", (LOSSLESS,)),
    "1.2.840.10008.1.2.4.80": Compression("JPEG-LS", "pyjpegls", (JPEG_LS,)),
    "1.2.840.10008.1.2.4.81": Compression("JPEG-LS", "pyjpegls", (JPEG_LS,), lossy=True),
    "1.2.840.10008.1.2.4.90": JPEG_2000,
    "1.2.840.10008.1.2.4.91": JPEG_2000_LOSSY,
}
EXTENDED_12_BIT = Compression("12-bit JPEG extended", "pylibjpeg", (EXTENDED,), lossy=True)

OVERLAY_BIT_POSITION = 0x60000102  # present where an overlay is kept in unused bits of the samples
MAX_OVERSHOOT = 0.01  # share of samples that a lossy codec may leave outside of Bits Stored
END_OF_CODESTREAM = b"\xff\xd9"
# Bytes that the codes of a JPEG 2000 code-block may leave over or lack: encoders cut it where they like, up to 4 too
# early or too late. Rot leaves over or lacks dozens.
MAX_J2K_MISFIT = 8
# Put behind the coded data: a decoder that has all of it never gets here, one that runs out of it does.
JPEG_FILLER = b"\x55" * 64
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


def has_bounded_cost(syntax: str) -> bool:
    """Say whether time and memory of decoding follow from rows and columns: native samples, and 8-bit JPEG."""
    return syntax not in COMPRESSIONS or COMPRESSIONS[syntax].frames == (BASELINE,)


def read_samples(dataset: Dataset, header: PixelHeader, syntax: str) -> np.ndarray:
    """Return the stored samples as integers, (rows, columns), all between header.lowest and header.highest.

    Raises: ImageError.
    """
    pixel_data = raw_value(dataset, "PixelData")
    if not isinstance(pixel_data, bytes):
        raise header_fault("Pixel Data is malformed")
    overlays_inside = OVERLAY_BIT_POSITION in dataset
    if syntax in NATIVE:
        return _native_samples(pixel_data, header, overlays_inside)
    frame = attempt(get_frame, pixel_data, 0, number_of_frames=1)
    if not frame:
        raise _damaged()
    compression = COMPRESSIONS[syntax]
    if compression.frames:
        decoded = _jpeg_samples(frame, header, syntax, compression)
    else:
        if compression is RLE:
            _check_rle(frame, header)
        else:
            frame = _without_padding(frame)
            _check_jpeg_2000(frame, header)
        decoded = _by_plugin(pixel_data, header, syntax, compression.plugin)
    if decoded is None or decoded.shape != (header.rows, header.columns):
        raise _damaged()
    return _within_bits_stored(decoded, header, overlays_inside, MAX_OVERSHOOT if compression.lossy else 0.0)


def _by_plugin(pixel_data: bytes, header: PixelHeader, syntax: str, plugin: str) -> np.ndarray | None:
    """Decode an encapsulated frame with one of pydicom's plugins; None where that fails."""
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
    return None if decoded is None else decoded[0]


def _within_bits_stored(
    samples: np.ndarray, header: PixelHeader, overlays_inside: bool, overshoot: float = 0.0
) -> np.ndarray:
    """Bring samples between header.lowest and header.highest; an error where neither overlay nor codec explains them.

    Args:
        overshoot: share of the samples that may lie outside.
    """
    if samples.max() <= header.highest and (not header.signed or samples.min() >= header.lowest):
        return samples
    if overlays_inside and not header.signed:
        return samples & header.highest
    outside = np.count_nonzero((samples > header.highest) | (samples < header.lowest))
    if outside > overshoot * samples.size:
        raise header_fault("its pixels need more bits than Bits Stored")
    return np.clip(samples, header.lowest, header.highest)


def _native_samples(pixel_data: bytes, header: PixelHeader, overlays_inside: bool) -> np.ndarray:
    """Cut Bits Stored out of each word; samples beyond them are an error where no overlay explains them."""
    num_samples, sample_bytes = header.rows * header.columns, header.bits_allocated // 8
    excess = len(pixel_data) - num_samples * sample_bytes
    if excess < 0:
        raise ImageError("damaged", "This DICOM file is cut short: its pixels are not all there. Copy it again.")
    if excess >= min(header.rows, header.columns) * sample_bytes:  # what a row or a column too few leaves over
        raise header_fault("Pixel Data is longer than Rows, Columns and Bits Allocated say")
    words = np.frombuffer(pixel_data, f"<u{sample_bytes}", num_samples).reshape(header.rows, header.columns)
    below = header.high_bit + 1 - header.bits_stored
    above = header.bits_allocated - header.high_bit - 1
    if header.signed:
        return (words << above).view(f"<i{sample_bytes}") >> (above + below)
    return _within_bits_stored(words >> below, header, overlays_inside)


def _jpeg_samples(frame: bytes, header: PixelHeader, syntax: str, compression: Compression) -> np.ndarray | None:
    """Decode a JPEG or JPEG-LS stream that agrees with the header; None where its pixels are incomplete or wrong."""
    jpeg = inspect_jpeg(frame)
    if jpeg.frame not in compression.frames:
        raise _disagreement()
    _compare(header, (jpeg.height, jpeg.width), jpeg.components, jpeg.precision)
    if jpeg.frame in (BASELINE, EXTENDED):
        if jpeg.precision == 8:
            return decode_scans(jpeg)
        compression = EXTENDED_12_BIT
        _check_plugin(syntax, compression)
    decoded = _by_plugin(encapsulate([frame]), header, syntax, compression.plugin)
    if decoded is None or jpeg.frame == JPEG_LS:  # whose decoder asks for all of the data and no more
        return decoded
    return decoded if _is_complete(jpeg, decoded, header, syntax, compression.plugin) else None


def _is_complete(jpeg: JpegFile, decoded: np.ndarray, header: PixelHeader, syntax: str, plugin: str) -> bool:
    """Say whether a JPEG decoder that makes up what is missing had all of the coded data."""
    filled = jpeg.essential[:-2] + JPEG_FILLER + jpeg.essential[-2:]
    again = _by_plugin(encapsulate([filled]), header, syntax, plugin)
    return again is not None and np.array_equal(again, decoded)


def _compare(
    header: PixelHeader, shape: tuple[int, int], components: int, precision: int, signed: bool | None = None
) -> None:
    """Compare what a codestream declares, rows and columns in `shape`, with the header; `signed` where it says so."""
    same = shape == (header.rows, header.columns) and components == 1 and signed in (None, header.signed)
    # More than Bits Stored is usual (an encoder that kept the whole word), less cannot hold the samples.
    if not same or not header.bits_stored <= precision <= header.bits_allocated:
        raise _disagreement()


def _disagreement() -> ImageError:
    return header_fault("it and the compressed picture disagree")


def _check_rle(frame: bytes, header: PixelHeader) -> None:
    """Add up what the RLE segments expand to (PS3.5 G.3), so that nothing expands without bound."""
    num_segments = header.bits_allocated // 8
    if len(frame) < 64 or struct.unpack_from("<I", frame)[0] != num_segments:
        raise _disagreement()
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
    """Compare a JPEG 2000 codestream with the header, and refuse one whose parts do not fit or cost too much."""
    stream = read_jpeg_2000_size(frame)
    _compare(header, (stream.height, stream.width), stream.components, stream.precision, signed=stream.signed)
    check_jpeg_2000_parts(frame, stream)
    if largest_misfit(claiming_predictable_ends(frame)) > MAX_J2K_MISFIT:
        raise _damaged()


def _without_padding(frame: bytes) -> bytes:
    """Cut off what stands behind a codestream to make its length even: zeros, or one byte of any value."""
    frame = frame.rstrip(b"\x00")
    return frame[:-1] if frame[-3:-1] == END_OF_CODESTREAM else frame


def _check_plugin(syntax: str, compression: Compression) -> None:
    if compression.plugin and compression.plugin not in get_decoder(syntax).available_plugins:
        message = f"This DICOM file is compressed with {compression.name}, which is not supported here."
        raise ImageError("dicom_compression", f"{message} Export it uncompressed or as JPEG 2000.")


def _damaged() -> ImageError:
    return ImageError("damaged", "The compressed pixels of this DICOM file are damaged. Export or copy it again.")
