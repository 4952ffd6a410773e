"""A trained network over the test split: predictions, numbers, localisation, and the cases for the report's gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cxr.anatomy.outline_model import OutlineModel
from cxr.anatomy.outlines import labels_at
from cxr.data.boxes import Box
from cxr.data.cache import CachedSplit
from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap
from cxr.heatmaps.gradcam import heatmaps
from cxr.metrics.calibration import Calibration
from cxr.metrics.localisation import AREA_GRID, Localisation, localise
from cxr.metrics.per_finding import Evaluation, Predictions, evaluate
from cxr.network.model_info import ModelInfo
from cxr.report.gallery import choose_cases
from cxr.training.loop import layer_output, predict_split

BATCH_SIZE = 32
VIEW_NUMBERS = ("num_images", "num_patients", "mean_auroc", "mean_auroc_interval", "num_defined", "auroc")
MIN_VIEW_IMAGES = 20  # of one view; below, its AUROC says nothing


@dataclass(frozen=True, eq=False)
class TestResults:
    """What was found on the test split.

    Attributes:
        calibration: None where the model has none.
        localisation: None without boxes.
        cases: (row, finding) pairs for the gallery.
        case_features: (n, h, w, channels) of the cases' radiographs.
        head_kernel: (channels, findings), which makes heatmaps of them.
        case_contents: digests of the cases' files; None where the split has none.
    """

    predictions: Predictions
    evaluation: Evaluation
    calibration: Calibration | None
    localisation: Localisation | None
    cases: list[tuple[int, int]]
    case_features: np.ndarray
    head_kernel: np.ndarray
    case_contents: list[np.ndarray] | None = None


def evaluate_test(
    network: keras.Model,
    info: ModelInfo,
    test: CachedSplit,
    boxes: Sequence[Box],
    seed: int = 0,
    outline_model: OutlineModel | None = None,
) -> TestResults:
    """Predict and evaluate the test split; heatmaps only where a box or the gallery wants one.

    Args:
        network: in float32, with the weights that `info` describes.
        boxes: of any images; those outside the split are only counted.
        seed: of the bootstrap and the random maps.
        outline_model: for the share of heat inside lungs and heart.
    """
    split = test.split
    logits = predict_split(layer_output(network, "logits"), test, BATCH_SIZE)
    predictions = Predictions(split.images, split.patients, info.findings, split.labels, logits)
    calibration = None
    if info.calibration:
        calibration = Calibration(tuple(info.calibration["slopes"]), tuple(info.calibration["biases"]))
    cases = choose_cases(predictions)
    boxed = {box.image for box in boxes}
    rows = sorted({row for row, image in enumerate(split.images) if image in boxed} | {row for row, _ in cases})
    features = np.zeros((0, *info.feature_shape), np.float32)
    if rows:
        features = predict_split(layer_output(network, "relu"), test.select(rows), BATCH_SIZE)
    head_kernel = network.get_layer("logits").get_weights()[0]
    localisation = None
    if boxes:
        maps = heatmaps(features, head_kernel)
        images, patients = ([names[row] for row in rows] for names in (split.images, split.patients))
        localisation = localise(
            maps,
            images,
            info.findings,
            boxes,
            seed=seed,
            patients=patients,
            find_boxes=boxes_from_heatmap,
            organs=_organs(test, [row for row in rows if split.images[row] in boxed], outline_model),
        )
    return TestResults(
        predictions,
        evaluate(predictions, info.thresholds, calibration, seed=seed),
        calibration,
        localisation,
        cases,
        features[[rows.index(row) for row, _ in cases]],
        head_kernel,
        None if test.contents is None else [test.contents[row] for row, _ in cases],
    )


def _organs(test: CachedSplit, rows: Sequence[int], outline_model: OutlineModel | None) -> dict[str, np.ndarray]:
    """Return where lungs and heart are on the cached radiographs that have credible ones, as `localise` takes it."""
    if outline_model is None:
        return {}
    found = {test.split.images[row]: outline_model.outline(test.model_inputs[row, :, :, 0]) for row in rows}
    return {
        image: labels_at(outlines, AREA_GRID, AREA_GRID) > 0
        for image, outlines in found.items()
        if outlines.heart_credible
    }


def summarise_set(
    results: TestResults, info: ModelInfo, description: str, views: Mapping[str, str], seed: int = 0
) -> dict[str, Any]:
    """Return the numbers of one test set that the model file carries, with what `summarise` leaves out.

    Args:
        description: what its radiographs are, in words; may be empty.
        views: image name -> "AP", "PA" ...; images without one are in no view's numbers.
        seed: of the bootstrap.
    """
    evaluation, predictions = results.evaluation, results.predictions
    summary = {"description": description, **summarise(evaluation)}
    summary["calibration_error"] = evaluation.stated.calibration_error
    if evaluation.calibrated is not None:
        summary["calibration_error_calibrated"] = evaluation.calibrated.calibration_error
    view_of = np.array([views.get(image, "") for image in predictions.images])
    summary["views"] = {}
    for view in sorted(set(view_of) - {""}):
        rows = np.flatnonzero(view_of == view)
        if len(rows) >= MIN_VIEW_IMAGES:
            part = evaluate(_rows_of(predictions, rows), info.thresholds, results.calibration, seed=seed)
            summary["views"][view] = {name: value for name, value in summarise(part).items() if name in VIEW_NUMBERS}
    if results.localisation is not None and results.localisation.overall.num_cases:
        overall = results.localisation.overall
        summary["pointing"] = {
            "num_cases": overall.num_cases,
            "in_box": overall.pointing,
            "random_in_box": overall.random_pointing,
        }
    return summary


def _rows_of(predictions: Predictions, rows: np.ndarray) -> Predictions:
    images, patients = (tuple(values[row] for row in rows) for values in (predictions.images, predictions.patients))
    return Predictions(images, patients, predictions.findings, predictions.labels[rows], predictions.logits[rows])


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return the numbers of the test split that the model file carries; undefined ones are NaN."""
    return {
        "num_images": evaluation.num_images,
        "num_patients": evaluation.num_patients,
        "mean_auroc": evaluation.mean_auroc.value,
        "mean_auroc_interval": [evaluation.mean_auroc.low, evaluation.mean_auroc.high],
        "num_defined": evaluation.num_defined,
        "auroc": {row.finding: row.auroc.value for row in evaluation.findings},
        "auroc_intervals": {row.finding: [row.auroc.low, row.auroc.high] for row in evaluation.findings},
        "positives": {row.finding: row.support for row in evaluation.findings},
        "average_precision": {row.finding: row.average_precision.value for row in evaluation.findings},
        "sensitivity": {row.finding: row.at_default.sensitivity for row in evaluation.findings},
        "specificity": {row.finding: row.at_default.specificity for row in evaluation.findings},
        "sensitivity_chosen": {row.finding: row.at_chosen.sensitivity for row in evaluation.findings},
        "specificity_chosen": {row.finding: row.at_chosen.specificity for row in evaluation.findings},
        "accuracy": evaluation.accuracy,
        "baseline_accuracy": evaluation.baseline_accuracy,
        "loss": evaluation.stated.loss,
    }
