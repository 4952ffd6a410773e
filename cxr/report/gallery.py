"""The report's gallery: which cases are the clearest hits and the worst errors, with their overlays and captions."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxr.data.cache import digest_of
from cxr.data.columns import display_name
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import ImageError, decode_radiograph, read_file
from cxr.metrics.number_text import probability_beside
from cxr.metrics.per_finding import Predictions
from cxr.report.report_page import GalleryPicture

logger = logging.getLogger(__name__)

NUM_HITS, NUM_ERRORS = 6, 6


def choose_cases(predictions: Predictions) -> list[tuple[int, int]]:
    """Choose (row, finding) pairs: the surest true findings, then the surest wrong answers of both kinds.

    One case per finding in each of the two groups, and no radiograph twice in a group, so that one finding or one odd
    picture does not fill the page.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    sureness = np.where(labels == 1, probabilities, np.nan)
    wrongness = np.where(labels == 1, 1 - probabilities, np.where(labels == 0, probabilities, np.nan))
    return _surest(sureness, NUM_HITS) + _surest(wrongness, NUM_ERRORS)


def make_gallery(
    cases: Sequence[tuple[int, int]],
    heatmaps: Sequence[np.ndarray],
    predictions: Predictions,
    image_dir: Path,
    threshold: float,
    contents: Sequence[np.ndarray] | None = None,
) -> list[GalleryPicture]:
    """Draw the chosen cases.

    Args:
        heatmaps: (findings, h, w) of each case's radiograph; they share one scale, as everywhere.
        threshold: the default rule's, for the captions.
        contents: digest of the file that each case's heatmaps are of, as CachedSplit has them; None to trust the names.
    Returns: the pictures; a radiograph that cannot be read any more, or is another one now, is left out, with a
        warning.
    """
    pictures = []
    for (row, finding), maps, content in zip(cases, heatmaps, contents or [None] * len(cases), strict=True):
        heatmap, peak = maps[finding], float(maps.max())
        probability, present = predictions.probabilities[row, finding], predictions.labels[row, finding] == 1
        hit = present == (probability >= threshold)
        written, limit = probability_beside(probability, threshold)
        caption = (
            f"{predictions.images[row]}: {display_name(predictions.findings[finding])}, labelled "
            f"{'present' if present else 'absent'}, probability {written} (threshold {limit})"
        )
        if heatmap.max() > 0:
            caption += f", hottest cell {heatmap.max():+.2g} logit (colours end at {peak:+.2g})"
        else:
            caption += ", no positive evidence"
        path = image_dir / predictions.images[row]
        try:
            data = read_file(path)
            if content is not None and digest_of(data) != content.tobytes():
                raise ImageError("damaged", "the file has changed since it was read for the evaluation")
            radiograph = decode_radiograph(data)
        except (OSError, ImageError) as error:  # hours of training must not end without a report
            logger.warning("%s: left out of the report's pictures: %s", predictions.images[row], error)
            continue
        pictures.append(GalleryPicture(overlay_heatmap(radiograph, heatmap, peak=peak), caption, bool(hit)))
    return pictures


def _surest(values: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return the (row, finding) pairs of the largest values above one half, no row and no finding twice."""
    chosen: list[tuple[int, int]] = []
    for place in np.argsort(-np.nan_to_num(values, nan=-1.0), axis=None, kind="stable"):
        row, finding = (int(one) for one in np.unravel_index(place, values.shape))
        if len(chosen) == count or not values[row, finding] >= 0.5:
            break
        if all(row != other_row and finding != other for other_row, other in chosen):
            chosen.append((row, finding))
    return chosen
