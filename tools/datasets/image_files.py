"""The files that a source's image names mean: which are there, under which path and extension."""

from pathlib import Path

import numpy as np

from cxr.system.file_search import MISSING, list_folder, search
from tools.datasets.collection import Collection, PrepareError, SourceBox


def keep_present(data: Collection, image_dir: Path) -> Collection:
    """Leave out images that are not below the folder, and give the others the path that they have there.

    A name means the file of that path, or the only one of that name in another folder, case or extension.

    Raises: PrepareError where there is no such folder or no image of the source in it.
    """
    if not image_dir.is_dir():
        raise PrepareError(f"{image_dir} is not a folder. Correct --image-dir, or leave it out to write all rows.")
    faulty = list_folder(image_dir, data.images).faulty
    missing = [image for image, fault in faulty.items() if fault == MISSING]
    found = search(image_dir, missing, set(data.images) - set(faulty)) if missing else {}
    paths = {image: one.path for image, one in found.items()}
    keep = np.array([image not in faulty or image in paths for image in data.images], bool)
    if not keep.any():
        raise PrepareError(
            f"{image_dir}: none of the {len(data.images):,} images of the source is there, for example "
            f"{data.images[0]!r}. Correct --image-dir, or leave it out to write all rows."
        )
    kept = data.select(keep)
    kept.images = [paths.get(image, image) for image in kept.images]
    kept.boxes = [
        SourceBox(paths.get(box.image, box.image), box.finding, box.x, box.y, box.width, box.height)
        for box in data.boxes
        if box.image not in faulty or box.image in paths
    ]
    if not keep.all():
        kept.leave_out("no image file in --image-dir", int((~keep).sum()))
    return kept
