"""Allocator settings that give freed memory back to the system (GNU C library only)."""

import ctypes
import ctypes.util

# Names and numbers: malloc.h of the GNU C library, mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
BIG_BLOCK = 128 * 1024  # bytes; from here on a block is mapped for itself, and unmapped when it is freed
NUM_ARENAS = 2


def keep_freed_memory_small() -> bool:
    """Set the allocator so that large blocks go back at once and threads share few arenas; say whether it could.

    By default the library raises its limit for mapped blocks to 32 MiB as they are freed, and gives every thread an
    arena of its own: what a burst of large uploads took stays with the process for good.
    """
    try:
        mallopt = ctypes.CDLL(ctypes.util.find_library("c")).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be found
        return False
    settings = {M_MMAP_THRESHOLD: BIG_BLOCK, M_TRIM_THRESHOLD: BIG_BLOCK, M_ARENA_MAX: NUM_ARENAS}
    done = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(done)
