"""Do heatmaps depend on what the model learned? The randomisation test of Adebayo et al. 2018 on the sample's boxes.

    python -m benchmarks.bench_randomisation

"Sanity Checks for Saliency Maps": an explanation that stays as it is when the weights are destroyed explains the
picture and not the model. The head of the shipped model is replaced in three ways; the backbone and the boxes stay. A
head's maps are scored by how often their peak falls into the true box, by the share of the hot region inside it (IoBB),
and by their rank correlation with the trained head's maps.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")

from scipy import stats

from cxr.data.boxes import Box, read_boxes
from cxr.data.columns import name_key
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.inference.predictor import Predictor
from cxr.metrics.localisation import HEAT_THRESHOLD, random_heatmaps, score_map
from cxr.system.csv_table import read_rows
from gradcam import MODEL_PATH, heatmaps

ROOT = Path(__file__).resolve().parents[1]
NUM_HEADS = 20  # random heads of each kind

Cases = dict[tuple[int, int], list[Box]]  # (row, finding) -> its boxes


def shuffle_findings(kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give every finding the weights of another one."""
    order = rng.permutation(kernel.shape[1])
    shifted = np.empty_like(kernel)
    shifted[:, order] = kernel[:, np.roll(order, 1)]  # a cycle through all findings keeps none in its place
    return shifted


def shuffle_weights(kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal each finding's weights out anew among the channels."""
    return rng.permuted(kernel, axis=0)


def random_weights(kernel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a head that was never trained, as wide as the trained one."""
    return rng.normal(0, kernel.std(), kernel.shape)


RANDOMISATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "findings shuffled": shuffle_findings,
    "weights shuffled": shuffle_weights,
    "random weights": random_weights,
}


def match_boxes(boxes: Sequence[Box], images: Sequence[str], findings: Sequence[str]) -> Cases:
    """Group boxes by picture and finding; boxes of others are left out."""
    rows = {image: row for row, image in enumerate(images)}
    columns = {name_key(finding): column for column, finding in enumerate(findings)}
    cases: Cases = {}
    for box in boxes:
        place = rows.get(box.image), columns.get(name_key(box.finding))
        if None not in place:
            cases.setdefault(place, []).append(box)
    return cases


def score_head(features: np.ndarray, kernel: np.ndarray, trained: np.ndarray, cases: Cases) -> np.ndarray:
    """Return the means over the cases of pointing, IoBB, and rank correlation with the trained head's maps.

    Args:
        features: float (n, h, w, channels).
        trained: float (n, findings, h, w), the trained head's maps.
    """
    maps, scores = heatmaps(features, kernel), []
    for case, boxes in cases.items():
        pointing, iobb, _ = score_map(maps[case], boxes, HEAT_THRESHOLD)
        scores.append((pointing, iobb, rank_correlation(maps[case], trained[case])))
    return np.mean(scores, axis=0)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two maps, 0 where one of them is the same everywhere."""
    first, second = (stats.rankdata(heatmap) for heatmap in (one, other))
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) and np.ptp(second) else 0.0


def score_randomised(features: np.ndarray, kernel: np.ndarray, cases: Cases, num_heads: int) -> dict[str, np.ndarray]:
    """Score the trained head, and `num_heads` of each kind of destroyed head: name -> (heads, 3)."""
    trained = heatmaps(features, kernel)
    scores = {"trained head": score_head(features, kernel, trained, cases)[np.newaxis]}
    for name, randomise in RANDOMISATIONS.items():
        heads = [randomise(kernel, np.random.default_rng(seed)) for seed in range(num_heads)]
        scores[name] = np.stack([score_head(features, head, trained, cases) for head in heads])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model-path", type=Path, default=MODEL_PATH, metavar="FILE", help="(default: the shipped one)"
    )
    parser.add_argument("--heads", type=int, default=NUM_HEADS, help=f"heads of each kind (default: {NUM_HEADS})")
    args = parser.parse_args()
    predictor, boxes = Predictor(args.model_path), read_boxes(ROOT / "sample_boxes.csv")
    boxed = {box.image for box in boxes}
    images = [row["Image"] for row in read_rows(ROOT / "test_data.csv") if row["Image"] in boxed]
    size = predictor.info.image_size
    inputs = np.stack([to_model_input(read_radiograph(ROOT / "images" / name), size) for name in images])
    features = predictor.predict(inputs).features
    cases = match_boxes(boxes, images, predictor.info.findings)
    scores = score_randomised(features, predictor.head_kernel, cases, args.heads)

    print(
        f"{len(cases)} cases in {len(images)} test radiographs, heatmaps of {features.shape[1]} x {features.shape[2]}"
    )
    print(f"{'mean (lowest to highest head)':<32}{'peak in the box':>22}{'IoBB':>22}{'rank correlation':>22}")
    for name, rows in scores.items():
        cells = [
            f"{mean:.2f} ({low:.2f} to {high:.2f})"
            for mean, low, high in zip(rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0), strict=True)
        ]
        print(f"{name:<32}" + "".join(f"{cell:>22}" for cell in cells))
    noise = random_heatmaps(np.random.default_rng(0), len(cases), features.shape[1:3])
    chance = np.mean(
        [score_map(one, case, HEAT_THRESHOLD)[:2] for one, case in zip(noise, cases.values(), strict=True)], 0
    )
    print(f"{'maps of random noise':<32}{chance[0]:>22.2f}{chance[1]:>22.2f}")


if __name__ == "__main__":
    main()
