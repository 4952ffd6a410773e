"""Small splits of random radiographs, cached."""

import numpy as np

from cxr.data.cache import CachedSplit
from cxr.data.labels import Split
from cxr.decoding import file_decoder
from cxr.imaging.radiograph import decode_with_notices

FINDINGS = ("Mass", "Edema")


SIZE = 32


def make_split(names, name="train"):
    labels = np.random.default_rng(len(names)).integers(0, 2, (len(names), 2)).astype(np.float32)
    labels[0, 1] = np.nan
    return Split(name, tuple(names), tuple(f"p{k}" for k in range(len(names))), labels, FINDINGS)


def make_cached(num_images, size=SIZE, seed=0):
    model_inputs = np.random.default_rng(seed).integers(0, 256, (num_images, size, size, 1), np.uint8)
    return CachedSplit(make_split([f"{k}.png" for k in range(num_images)]), model_inputs, "test")


def count_decodings(monkeypatch, image_dir):
    names = {path.read_bytes(): path.name for path in image_dir.iterdir()}
    decoded = []

    def decode(data):
        decoded.append(names.get(data, "changed"))
        return decode_with_notices(data)

    monkeypatch.setattr(file_decoder, "decode_with_notices", decode)
    return decoded
