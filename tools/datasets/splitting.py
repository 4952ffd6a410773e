"""Three splits of whole patients: the source's own where it has them, the others drawn at random but seeded."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tools.datasets.collection import SPLITS, Collection, PrepareError


def draw_patients(patients: Sequence[str], share: float, seed: int) -> set[str]:
    """Draw whole patients at random until they have at least `share` of the images.

    Args:
        patients: one entry per image.

    Returns: the drawn patients. They depend on the ids and the seed alone, not on the order of the images.
    """
    num_images = Counter(patients)
    names = sorted(num_images)
    drawn: set[str] = set()
    count = 0
    for position in np.random.default_rng(seed).permutation(len(names)):
        if count >= share * len(patients):
            break
        drawn.add(names[position])
        count += num_images[names[position]]
    return drawn


def split_by_patient(
    data: Collection, val_share: float, test_share: float, seed: int, keep_own: bool = True
) -> dict[str, Collection]:
    """Return train, val and test.

    An image without a split of its source goes where its patient's others are. Images of patients without any, and what
    of val and test the source does not have, are drawn by patient: test first, of all images that may be drawn, then
    val of what is left.

    Args:
        keep_own: use the source's own split; else it is forgotten and everything drawn.

    Raises:
        PrepareError: the source's own splits share patients, or a split would be empty.
    """
    splits = list(data.splits) if keep_own else [""] * len(data.images)
    if any(splits):
        split_of = _splits_of_patients(data.patients, splits)
        splits = [split or split_of.get(patient, "") for split, patient in zip(splits, data.patients, strict=True)]
    own = set(splits) - {""}
    for name, share, number in (("test", test_share, 1), ("val", val_share, 0)):
        if name in own:
            continue
        rows = [row for row, split in enumerate(splits) if split in ("", "train")]
        drawn = draw_patients([data.patients[row] for row in rows], share, seed + number)
        for row in rows:
            if data.patients[row] in drawn:
                splits[row] = name
    named = np.array([split or "train" for split in splits])
    parts = {name: data.select(named == name) for name in SPLITS}
    empty = [name for name, part in parts.items() if not part.images]
    if empty:
        raise PrepareError(
            f"no image for {' and '.join(empty)}: {len(data.images)} images of {len(set(data.patients))} patients are "
            "there to divide. Give more images, or other --val-share and --test-share."
        )
    return parts


def _splits_of_patients(patients: Sequence[str], splits: Sequence[str]) -> dict[str, str]:
    """Return patient -> the split of images of it that have one. Raises: PrepareError where there are several."""
    first: dict[str, str] = {}
    shared = {
        patient
        for patient, split in zip(patients, splits, strict=True)
        if patient and split and first.setdefault(patient, split) != split
    }
    if shared:
        raise PrepareError(
            f"{len(shared)} patients are in more than one of the source's own splits. With them scores would be too "
            "good. Draw splits by patient instead with --draw."
        )
    return first
