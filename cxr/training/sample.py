"""Which data is the shipped sample: told by what it is, never by a path or by how a CSV is written."""

import hashlib
from pathlib import Path

from cxr.data.labels import Split

SAMPLE_DATA = "synthetic radiographs of a digital phantom, no patients"
# Split -> number of images, and their identity.
SAMPLE_SPLITS = {
    "train": (480, "60c04c4995e7a6b7745d118bb291a3ddfdeb93f312ebb537d34199606d4947a6"),
    "val": (120, "57836b3a0d26159725d48d4a7e4058d24b43e002842fdae1af9e32b44d2aea10"),
    "test": (240, "76cbd25f1b61a9c66d4c9f734c45596ecba49ddde2ed4cc9c56badead2086be3"),
}


def is_sample(split: Split, image_dir: Path) -> bool:
    """Say whether a split holds the radiographs and patients of the sample's split of the same name.

    The order of rows, line ends and the choice of findings do not matter; the bytes of every image do, since NIH's
    radiographs have the sample's file names.

    Raises:
        OSError: an image cannot be read.
    """
    num_images, identity = SAMPLE_SPLITS[split.name]
    return len(split.images) == num_images and identity_of(split, image_dir) == identity


def identity_of(split: Split, image_dir: Path) -> str:
    """Return the SHA-256 over image names, patients and image files of a split, in the order of names."""
    identity = hashlib.sha256()
    for image, patient in sorted(zip(split.images, split.patients, strict=True)):
        content = hashlib.sha256((image_dir / image).read_bytes()).hexdigest()
        identity.update(f"{image}\t{patient}\t{content}\n".encode())
    return identity.hexdigest()
