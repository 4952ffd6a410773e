"""The rules that every picture has to meet before it is decoded, and the error that says which one it broke.

Owns the limits, the table of error codes and the rule for full scale; knows no file format and decodes nothing.
"""

MAX_FILE_BYTES = 100 * 1024 * 1024  # read_radiograph: 36 MP of raw 16-bit samples are 72 MB
MAX_PIXELS = 36_000_000  # 6000 x 6000: the largest detectors give about 20 MP; stops decompression bombs
MAX_DECODED_BYTES = 4 * MAX_PIXELS  # bytes of decoded samples: 36 MP of 8-bit RGBA
MIN_SIDE = 64  # pixels; below this no finding can be seen
MAX_SIDE = 10_000  # pixels
MAX_ASPECT = 4  # longer side over shorter side
SAMPLE_DEPTHS = (8, 10, 12, 14, 16)  # bits per sample that detectors and converters use

# Error code -> HTTP status: 415 is not an allowed type, 422 is an allowed type but an unusable picture.
ERROR_STATUS = {
    "empty": 422,
    "type": 415,
    "jpeg_kind": 415,
    "dicom_compression": 415,
    "dicom_colour": 415,
    "dicom_directory": 415,
    "dicom_no_picture": 422,
    "dicom_header": 422,
    "damaged": 422,
    "several_pictures": 422,
    "too_small": 422,
    "too_large": 422,
    "aspect": 422,
    "too_many_scans": 422,
    "too_costly": 422,
    "blank": 422,
}


class ImageError(ValueError):
    """A file that cannot be used as a radiograph; the text is fit for a user and holds nothing of the file's metadata.

    Attributes: code, a stable key of ERROR_STATUS; status, the HTTP status that goes with it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = ERROR_STATUS[code]

    def __reduce__(self) -> tuple:
        return ImageError, (self.code, str(self))  # so that it survives the way out of a child process


def check_sides(width: int, height: int, bytes_per_pixel: int = 1) -> None:
    """Refuse a picture by its declared size, before anything is allocated for it.

    Raises: ImageError too_small, too_large or aspect.
    """
    size = f"The picture is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise ImageError("too_small", f"{size}; each side must have at least {MIN_SIDE}. Use the original picture.")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limits = f"at most {MAX_SIDE} per side and {MAX_PIXELS // 1_000_000} million in all are read"
        raise ImageError("too_large", f"{size}; {limits}. Save it smaller.")
    if width * height * bytes_per_pixel > MAX_DECODED_BYTES:
        message = f"{size} of {bytes_per_pixel} bytes each, which is too much. Save it as an 8- or 16-bit grey picture."
        raise ImageError("too_large", message)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("aspect", f"{size}; the longer side may be at most {MAX_ASPECT} times the shorter. Crop it.")


def full_scale(largest: int) -> int:
    """Return the value that stands for white: the full scale of the smallest usual depth that holds `largest`.

    12-bit samples kept in 16-bit words are common, and nothing in the file says so. Scaling by 65535 would turn such
    a picture black, scaling by its own largest value would change the contrast of every picture.
    """
    return next(2**bits - 1 for bits in SAMPLE_DEPTHS if largest < 2**bits)
