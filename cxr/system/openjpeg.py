"""What OpenJPEG notices while it decodes a JPEG 2000 codestream, which its Python package keeps to itself.

The package's compiled module exports OpenJPEG's own functions on Linux; where it does not, nothing is noticed.
"""

import ctypes
import functools
import importlib.util
import re

PACKAGE = "_openjpeg"  # of pylibjpeg-openjpeg
CODESTREAM = 0  # OPJ_CODEC_J2K
READING = 1
NO_MORE = ctypes.c_size_t(-1).value  # what a stream returns at its end
BUFFER_BYTES = 2**20
PARAMETER_BYTES = 2**16  # room for opj_dparameters_t, which takes about 9 kB
# opj_t1_decode_cblk: what is left of a code-block's bytes when its passes are decoded, or was made up for them.
MISFIT = re.compile(rb"PTERM check failure: (\d+) (?:remaining bytes|synthesized)")

_Read = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_Skip = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_void_p)
_Message = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
SIGNATURES = {  # function -> type of its result, types of its arguments
    "opj_stream_create": (_POINTER, _SIZE, ctypes.c_int),
    "opj_stream_destroy": (None, _POINTER),
    "opj_stream_set_read_function": (None, _POINTER, _Read),
    "opj_stream_set_skip_function": (None, _POINTER, _Skip),
    "opj_stream_set_seek_function": (None, _POINTER, _Seek),
    "opj_stream_set_user_data": (None, _POINTER, _POINTER, _POINTER),
    "opj_stream_set_user_data_length": (None, _POINTER, ctypes.c_uint64),
    "opj_create_decompress": (_POINTER, ctypes.c_int),
    "opj_destroy_codec": (None, _POINTER),
    "opj_set_default_decoder_parameters": (None, _POINTER),
    "opj_setup_decoder": (ctypes.c_int, _POINTER, _POINTER),
    "opj_set_warning_handler": (ctypes.c_int, _POINTER, _Message, _POINTER),
    "opj_read_header": (ctypes.c_int, _POINTER, _POINTER, ctypes.POINTER(_POINTER)),
    "opj_decode": (ctypes.c_int, _POINTER, _POINTER, _POINTER),
    "opj_image_destroy": (None, _POINTER),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return OpenJPEG as the Python package brings it; None where its functions cannot be called."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    loaded = ctypes.CDLL(spec.origin)
    for name, (result, *arguments) in SIGNATURES.items():
        if not hasattr(loaded, name):
            return None
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def largest_misfit(codestream: bytes) -> int:
    """Decode a codestream, and return by how many bytes the codes of a code-block miss its end at most.

    Args:
        codestream: must claim that its code-blocks end predictably, for OpenJPEG to look at their ends at all.
    Returns: bytes; 0 where OpenJPEG cannot be asked.
    """
    opj = library()
    if opj is None:
        return 0
    misfits = [0]
    position = 0

    @_Read
    def read(buffer: int, num_bytes: int, _: int) -> int:
        nonlocal position
        piece = codestream[position : position + num_bytes]
        ctypes.memmove(buffer, piece, len(piece))
        position += len(piece)
        return len(piece) or NO_MORE

    @_Skip
    def skip(num_bytes: int, _: int) -> int:
        nonlocal position
        before, position = position, min(max(position + num_bytes, 0), len(codestream))
        return position - before

    @_Seek
    def seek(target: int, _: int) -> int:
        nonlocal position
        position = min(max(target, 0), len(codestream))
        return position == target

    @_Message
    def warn(message: bytes, _: int) -> None:
        if found := MISFIT.search(message):
            misfits.append(int(found.group(1)))

    parameters = ctypes.create_string_buffer(PARAMETER_BYTES)
    opj.opj_set_default_decoder_parameters(parameters)
    stream, codec = opj.opj_stream_create(BUFFER_BYTES, READING), opj.opj_create_decompress(CODESTREAM)
    image = ctypes.c_void_p()
    try:
        opj.opj_stream_set_read_function(stream, read)
        opj.opj_stream_set_skip_function(stream, skip)
        opj.opj_stream_set_seek_function(stream, seek)
        opj.opj_stream_set_user_data(stream, None, None)
        opj.opj_stream_set_user_data_length(stream, len(codestream))
        opj.opj_set_warning_handler(codec, warn, None)
        if opj.opj_setup_decoder(codec, parameters) and opj.opj_read_header(stream, codec, ctypes.byref(image)):
            opj.opj_decode(codec, stream, image)
    finally:
        opj.opj_image_destroy(image)
        opj.opj_destroy_codec(codec)
        opj.opj_stream_destroy(stream)
    return max(misfits)
