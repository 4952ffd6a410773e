"""A decoder process with faults built in: the first bytes of a file choose one."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cxr.decoding.message_pipe import take_channel, write_message

if __name__ == "__main__":
    CHANNEL = take_channel()

from cxr.decoding.worker import main
from cxr.imaging.radiograph import decode_with_notices


def decode(data):
    if data.startswith(b"ABORT"):
        os.abort()
    if data.startswith(b"HANG"):
        time.sleep(60)
    if data.startswith(b"MEMORY"):
        bytearray(2**31)
    if data.startswith(b"BUG"):
        raise RuntimeError("MUSTERMANN^ERIKA")
    if data.startswith(b"EXIT"):
        sys.exit(0)
    if data.startswith(b"PRINT"):
        print("a library's chatter", flush=True)
        os.write(1, b"more of it")
        data = data[5:]
    if data.startswith(b"FORGE"):  # what no library does: write into the channel itself
        os.write(CHANNEL[1].fileno(), b"libpng warning: tRNS: invalid with some more")
        data = data[5:]
    if data.startswith(b"LATE"):
        write_message(CHANNEL[1], 0, b"an answer to somebody else")
        data = data[4:]
    return decode_with_notices(data)


if __name__ == "__main__":
    sys.exit(main(CHANNEL, decode))
