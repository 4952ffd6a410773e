"""Do the heatmaps point where a radiologist drew a box? Pointing game, IoBB and IoU, beside random maps. NumPy only.

Geometry: radiograph, model input and heatmap show the same whole picture, so everything is measured in shares of its
width and height. Cell (row, column) of an (h, w) map is the tile of size (1/w, 1/h) centred at ((column + 0.5) / w,
(row + 0.5) / h); areas are taken from the map enlarged bilinearly between cell centres, as cv2.resize does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from cxr.data.boxes import Box
from cxr.data.columns import name_key
from cxr.metrics.box_overlap import BoxCase, BoxLocalisation, Rectangle, score_boxes

AREA_GRID = 128  # cells per side on which areas are counted; one is 8 pixels of NIH's picture
HEAT_THRESHOLD = 0.5  # share of a map's largest value from which a point belongs to its hot region
NUM_RANDOM_MAPS = 20  # random maps per case behind the control
NO_ORGANS: Mapping[str, np.ndarray] = MappingProxyType({})
RANDOM_BLUR = 1.0  # standard deviation, in cells, of the blur that makes a random map as smooth as a heatmap


@dataclass(frozen=True)
class LocalisationScore:
    """Means over the cases (image and finding with at least one box) of one finding; NaN without cases.

    `pointing`: share of cases whose hottest point lies in a box. `iobb`: share of the hot region that lies in a box
    (Wang et al. 2017, "ChestX-ray8", with the region itself in place of a box around it). `iou`: shared area over
    joint area. The `random_` values are those of random maps; `box_share` is the mean area of the boxes, which is what
    a point thrown at random hits. `inside`: share of the heat inside lungs and heart, over the `num_inside` cases whose
    map has heat and whose radiograph has outlines.
    """

    finding: str
    num_cases: int
    num_boxes: int
    pointing: float
    random_pointing: float
    iobb: float
    random_iobb: float
    iou: float
    random_iou: float
    box_share: float
    num_inside: int = 0
    inside: float = np.nan
    random_inside: float = np.nan


@dataclass(frozen=True)
class Localisation:
    """Scores per finding that has boxes and over all cases.

    `num_blank`: maps without positive evidence, which count as misses. `num_unused`: boxes whose image or finding is
    not among the evaluated ones. `boxes`: how well the boxes of the maps match; None where none were made.
    """

    findings: tuple[LocalisationScore, ...]
    overall: LocalisationScore
    num_blank: int
    num_unused: int
    boxes: BoxLocalisation | None = None


def localise(
    heatmaps: np.ndarray,
    images: Sequence[str],
    findings: Sequence[str],
    boxes: Sequence[Box],
    heat_threshold: float = HEAT_THRESHOLD,
    seed: int = 0,
    patients: Sequence[str] | None = None,
    find_boxes: Callable[[np.ndarray], Sequence[Rectangle]] | None = None,
    organs: Mapping[str, np.ndarray] = NO_ORGANS,
) -> Localisation:
    """Score heatmaps, and the boxes made of them, against boxes; score random maps of the same shape beside them.

    Args:
        heatmaps: (n, findings, h, w) >= 0, each over the whole picture.
        images: (n,) file names, as in the boxes.
        findings: (findings,) names in the order of the maps.
        heat_threshold: share of a map's largest value that bounds its hot region.
        patients: (n,) for the intervals of box scores; None where each image counts as one.
        find_boxes: map (h, w) -> its boxes.
        organs: image -> where its lungs and heart are, bool (AREA_GRID, AREA_GRID) over the whole picture.
    """
    if heatmaps.ndim != 4 or heatmaps.shape[:2] != (len(images), len(findings)):
        raise ValueError(
            f"heatmaps do not fit the names: expected ({len(images)}, {len(findings)}, h, w), "
            f"received {heatmaps.shape}."
        )
    row_of_image = {image: row for row, image in enumerate(images)}
    column_of_finding = {name_key(finding): column for column, finding in enumerate(findings)}
    cases: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        place = row_of_image.get(box.image), column_of_finding.get(name_key(box.finding))
        if place[0] is not None and place[1] is not None:
            cases.setdefault((place[0], place[1]), []).append(box)

    rng = np.random.default_rng(seed)
    scores, insides, box_cases = {}, {}, []
    for case, case_boxes in cases.items():
        heatmap, controls = heatmaps[case], random_heatmaps(rng, NUM_RANDOM_MAPS, heatmaps.shape[2:])
        of_random = np.mean([score_map(control, case_boxes, heat_threshold) for control in controls], axis=0)
        scores[case] = (*score_map(heatmap, case_boxes, heat_threshold), *of_random)
        row, column = case
        if images[row] in organs and heatmap.any():
            inside = organs[images[row]]
            insides[case] = share_inside(heatmap, inside), np.mean([share_inside(one, inside) for one in controls])
        if find_boxes is not None:
            patient = images[row] if patients is None else patients[row]
            found, random = find_boxes(heatmap), [find_boxes(control) for control in controls]
            box_cases.append(BoxCase(findings[column], patient, case_boxes, found, random))
    per_finding = [
        _mean_score(
            finding,
            [(scores[case], cases[case]) for case in cases if case[1] == column],
            [insides[case] for case in insides if case[1] == column],
        )
        for column, finding in enumerate(findings)
    ]
    return Localisation(
        findings=tuple(score for score in per_finding if score.num_cases),
        overall=_mean_score("All", [(scores[case], cases[case]) for case in cases], list(insides.values())),
        num_blank=sum(not heatmaps[case].max() > 0 for case in cases),
        num_unused=len(boxes) - sum(map(len, cases.values())),
        boxes=None if find_boxes is None else score_boxes(box_cases, findings, seed),
    )


def score_map(heatmap: np.ndarray, boxes: Sequence[Box], heat_threshold: float) -> tuple[float, float, float]:
    """Return pointing, IoBB and IoU of one map (h, w) against the union of the boxes of its finding.

    Where several cells share the largest value the share of them in a box counts. An all-zero map scores 0.
    """
    if not heatmap.max() > 0:
        return 0.0, 0.0, 0.0
    in_box = box_mask(boxes, heatmap.shape)
    pointing = float(in_box[heatmap == heatmap.max()].mean())
    target = box_mask(boxes, (AREA_GRID, AREA_GRID))
    enlarged = enlarge(heatmap, AREA_GRID)
    hot = enlarged >= heat_threshold * enlarged.max()
    shared = (hot & target).sum()
    return pointing, float(shared / hot.sum()), float(shared / (hot | target).sum())


def share_inside(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the heat of a map (h, w) that lies in a mask, bool (AREA_GRID, AREA_GRID)."""
    enlarged = enlarge(heatmap, AREA_GRID)
    return float(enlarged[mask].sum() / enlarged.sum())


def box_mask(boxes: Sequence[Box], shape: tuple[int, ...]) -> np.ndarray:
    """Return bool (h, w): which cells of a map over the whole picture have their centre in a box."""
    rows, columns = ((np.arange(count) + 0.5) / count for count in shape)
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        in_rows = (rows >= box.top) & (rows < box.top + box.height)
        in_columns = (columns >= box.left) & (columns < box.left + box.width)
        mask |= in_rows[:, None] & in_columns[None, :]
    return mask


def enlarge(heatmap: np.ndarray, size: int) -> np.ndarray:
    """Enlarge (h, w) to (size, size) bilinearly between cell centres; constant outside the outermost centres."""
    row_weights, column_weights = (_interpolation(count, size) for count in heatmap.shape)
    return row_weights @ heatmap @ column_weights.T


def _interpolation(count: int, size: int) -> np.ndarray:
    """Return the (size, count) matrix that interpolates `count` cell values at `size` cell centres."""
    positions = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    below = np.minimum(positions.astype(int), max(count - 2, 0))
    weights = np.zeros((size, count))
    weights[np.arange(size), below] = 1 - (positions - below)
    weights[np.arange(size), np.minimum(below + 1, count - 1)] += positions - below
    return weights


def random_heatmaps(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw blurred, rectified noise (count, h, w) whose peak is equally likely in every cell.

    The blur wraps round the edges; otherwise peaks would prefer them. So the expected pointing score of these maps is
    the share of cell centres that lie in a box.
    """
    rows, columns = (np.fft.fftfreq(length) for length in shape)
    spread = 2 * (np.pi * RANDOM_BLUR) ** 2
    blur = np.exp(-spread * (rows[:, None] ** 2 + columns[None, :] ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, *shape))) * blur).real
    return np.maximum(noise - noise.mean(axis=(1, 2), keepdims=True), 0.0)


def _mean_score(
    finding: str,
    cases: Sequence[tuple[tuple[float, ...], Sequence[Box]]],
    insides: Sequence[tuple[float, float]],
) -> LocalisationScore:
    """Average (pointing, IoBB, IoU, and the same of random maps) over cases, each case counting once.

    Args:
        insides: of the cases that have them, the shares of heat inside lungs and heart: of the map, of random maps.
    """
    if not cases:
        return LocalisationScore(finding, 0, 0, *[float("nan")] * 7)
    pointing, iobb, iou, random_pointing, random_iobb, random_iou = np.mean([scores for scores, _ in cases], axis=0)
    share = np.mean([box_mask(boxes, (AREA_GRID, AREA_GRID)).mean() for _, boxes in cases])
    numbers = (pointing, random_pointing, iobb, random_iobb, iou, random_iou, share)
    score = LocalisationScore(finding, len(cases), sum(len(boxes) for _, boxes in cases), *map(float, numbers))
    if not insides:
        return score
    inside, random_inside = map(float, np.mean(insides, axis=0))
    return replace(score, num_inside=len(insides), inside=inside, random_inside=random_inside)
