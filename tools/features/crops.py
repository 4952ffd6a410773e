"""Random crops of grey pictures for teacher and student: position, exposure, blur, blends.

Everything random is a function of (seed, number of the crop): a run that was stopped goes on with the very same crops.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

BATCH_SIZE = 32
TEACHER_SIZE = 160  # pixels; its map mixed7 then has 8 x 8 cells
STUDENT_SIZE = 128  # pixels; DenseNet121's pool4_relu then has as many


@dataclass(frozen=True)
class CropLimits:
    """How far crops differ from their pictures; what has no unit is a share of the crops.

    Attributes:
        min_area: the least share of the picture's area; up to all of it.
        stretch: the crop's height over its width is exp of -stretch to stretch.
        gamma: exponent of the grey curve, exp of -gamma to gamma.
        contrast: factor of a grey level's distance from mid-grey, from and to.
        brightness: grey levels that are added, between minus and plus this.
        blur: standard deviation of a Gaussian in pixels of the teacher's input, from and to.
        blend: the crop's own share where it is blended with an earlier one of its batch, from and to.
    """

    min_area: float = 0.2
    stretch: float = 0.25
    mirrored: float = 0.5
    gamma: float = 0.4
    contrast: tuple[float, float] = (0.6, 1.3)
    brightness: float = 25.0
    blurred: float = 0.25
    blur: tuple[float, float] = (0.3, 1.2)
    inverted: float = 0.1
    blended: float = 0.25
    blend: tuple[float, float] = (0.3, 0.7)


RADIOGRAPHS = CropLimits()
PHOTOGRAPHS = dataclasses.replace(RADIOGRAPHS, min_area=0.1)  # whose things are smaller


def draw_crop(picture: np.ndarray, rng: np.random.Generator, limits: CropLimits, size: int) -> np.ndarray:
    """Draw one crop, mirrored, exposed and blurred at random.

    Args:
        picture: uint8 (h, w).
    Returns: float32 (size, size), 0 to 255.
    """
    height, width = picture.shape
    area = rng.uniform(limits.min_area, 1) * height * width
    ratio = np.exp(rng.uniform(-limits.stretch, limits.stretch))
    rows, columns = min(height, int((area * ratio) ** 0.5)), min(width, int((area / ratio) ** 0.5))
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    crop = picture[top : top + rows, left : left + columns]
    crop = resize(crop, size, cv2.INTER_AREA if rows > size else cv2.INTER_LINEAR).astype(np.float32)
    if rng.random() < limits.mirrored:
        crop = crop[:, ::-1]
    crop = 255 * (crop / 255) ** np.exp(rng.uniform(-limits.gamma, limits.gamma))
    crop = (crop - 128) * rng.uniform(*limits.contrast) + 128 + rng.uniform(-limits.brightness, limits.brightness)
    if rng.random() < limits.blurred:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(*limits.blur))
    if rng.random() < limits.inverted:
        crop = 255 - crop
    return np.clip(crop, 0, 255).astype(np.float32)


def resize(picture: np.ndarray, size: int, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    return cv2.resize(picture, (size, size), interpolation=interpolation)


class CropBatches:
    """Batches of crops by number; each is made anew when it is asked for, from any thread."""

    def __init__(
        self,
        radiographs: Sequence[np.ndarray],
        photographs: Sequence[np.ndarray],
        photograph_share: float,
        seed: int,
        num_crops: int,
        sizes: tuple[int, int] = (TEACHER_SIZE, STUDENT_SIZE),
    ) -> None:
        """Keep what the crops are drawn from.

        Args:
            radiographs, photographs: uint8 (h, w) each; either may be empty.
            photograph_share: share of the crops that is drawn from photographs, where there are any.
            num_crops: rounded up to whole batches.
            sizes: sides of the teacher's and the student's input.
        """
        self.radiographs, self.photographs, self.seed, self.sizes = radiographs, photographs, seed, sizes
        self.photograph_share = photograph_share if photographs else 0.0
        self.num_batches = -(-num_crops // BATCH_SIZE)

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs of teacher and student, float32 (BATCH_SIZE, side, side, 1), 0 to 255; of any index."""
        crops: list[np.ndarray] = []
        for number in range(index * BATCH_SIZE, (index + 1) * BATCH_SIZE):
            crops.append(self._crop(np.random.default_rng((self.seed, number)), crops))
        small = [resize(crop, self.sizes[1]) for crop in crops]
        return np.stack(crops)[..., np.newaxis], np.stack(small)[..., np.newaxis]

    def _crop(self, rng: np.random.Generator, earlier: Sequence[np.ndarray]) -> np.ndarray:
        """Draw a picture and a crop of it, and perhaps blend it with an earlier crop of the batch."""
        of_photographs = rng.random() < self.photograph_share
        pictures, limits = (self.photographs, PHOTOGRAPHS) if of_photographs else (self.radiographs, RADIOGRAPHS)
        crop = draw_crop(pictures[rng.integers(len(pictures))], rng, limits, self.sizes[0])
        if earlier and rng.random() < limits.blended:
            share = np.float32(rng.uniform(*limits.blend))
            crop = share * crop + (1 - share) * earlier[rng.integers(len(earlier))]
        return crop
