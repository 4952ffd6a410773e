"""How well lungs and heart are outlined, and how often what is no frontal radiograph gets no outline.

    python -m benchmarks.bench_anatomy --outlined lungs --sheet outlines.png
    python -m benchmarks.bench_anatomy --phantom lungs_phantom
    python -m benchmarks.bench_anatomy --set nih test_data.csv DIR_OF_RADIOGRAPHS
    python -m benchmarks.bench_anatomy --hearts test_data.csv DIR_OF_RADIOGRAPHS BBox_List_2017.csv

`lungs` holds lungs.csv (columns image and use), images, and masks of both lungs together; rows whose use is "evaluate"
are measured. `lungs_phantom` is made by `python -m tools.make_sample_data --masks`. --hearts holds the cardiothoracic
ratio against labels and readers' boxes of Cardiomegaly. --set takes radiographs as bench_input_check does, as
they are and changed, and what was drawn: the share without credible lungs, the share that the classifier's input check
flags, and the share that either finds.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")

from benchmarks.bench_input_check import CHANGES, Pictures, drawn_pictures, photographs, read_set
from cxr.anatomy.outline_model import OutlineModel
from cxr.anatomy.outlines import Outlines, heart_at, labels_at
from cxr.data.boxes import read_boxes
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.inference.predictor import Predictor
from cxr.metrics.ranking import estimate_rankings, resample_weights
from cxr.network.input_check import check_inputs
from gradcam import MODEL_PATH
from tools.anatomy.examples import read_mask
from tools.anatomy.measures import Hearts, measure_hearts, score_outlined, score_phantom, summary

ROOT = Path(__file__).resolve().parents[1]
TILE, COLUMNS, NUM_TILES = 240, 8, 40  # of the sheet, pixels and pictures
COLOURS = {1: (80, 80, 255), 2: (80, 220, 80)}  # blue, green, red, of right and left lung
HEART_COLOUR, READER_COLOUR = (255, 160, 60), (0, 230, 255)

HALVES = {
    "left half of the picture": lambda picture: picture[:, : picture.shape[1] // 2],
    "right half of the picture": lambda picture: picture[:, picture.shape[1] // 2 :],
    "upper half": lambda picture: picture[: picture.shape[0] // 2],
    "lower half": lambda picture: picture[picture.shape[0] // 2 :],
}


def draw_outlines(radiograph: np.ndarray, outlines: Outlines, size: int = TILE) -> np.ndarray:
    """Draw contours on a tile: red the right lung, green the left one, blue the heart where it is credible."""
    tile = cv2.cvtColor(cv2.resize(radiograph, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    labels = labels_at(outlines, size, size)
    for label, colour in COLOURS.items():
        _contour(tile, labels == label, colour)
    if outlines.heart_credible:
        _contour(tile, heart_at(outlines, size, size), HEART_COLOUR)
    if not outlines.lungs_credible:
        cv2.putText(tile, "no outline", (6, size - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 255), 1, cv2.LINE_AA)
    return tile


def _contour(tile: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, contours, -1, colour, 1)


def draw_sheet(model: OutlineModel, folder: Path, names: Sequence[str], scores: dict[str, float]) -> np.ndarray:
    """Draw found and readers' outlines (yellow) of some radiographs, with their Dice, on one sheet."""
    tiles = []
    for name in names:
        radiograph = read_radiograph(folder / "images" / name)
        tile = draw_outlines(radiograph, model.outline(radiograph))
        mask = cv2.resize(read_mask(folder / "masks" / name)[..., 0], (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        _contour(tile, mask > 127, READER_COLOUR)
        words = f"{Path(name).stem} {scores[name]:.3f}"
        cv2.putText(tile, words, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[row : row + COLUMNS]) for row in range(0, len(tiles), COLUMNS)])


def measure_outlined(model: OutlineModel, folder: Path, sheet: Path | None) -> None:
    scores = score_outlined(model.outline, folder, "evaluate")
    print(f"readers' outlines, both lungs: {summary(list(scores.values()))}")
    worst = sorted(scores, key=scores.get)[:10]
    print("worst ten: " + ", ".join(f"{name} {scores[name]:.3f}" for name in worst))
    if sheet is not None:
        even = sorted(scores)[:: -(-len(scores) // (NUM_TILES - len(worst)))]
        cv2.imwrite(
            str(sheet), draw_sheet(model, folder, [*worst, *(name for name in even if name not in worst)], scores)
        )
        print(f"{sheet}: the worst ten, then every {-(-len(scores) // (NUM_TILES - len(worst)))}th")


def shares(model: OutlineModel, predictor: Predictor, pictures: Pictures) -> tuple[float, float, float]:
    """Return the shares without credible lungs, flagged by the input check, and found by either."""
    pictures = [np.ascontiguousarray(one) for one in pictures]
    no_lungs = np.array([not model.outline(one).lungs_credible for one in pictures])
    inputs = np.stack([to_model_input(one, predictor.info.image_size) for one in pictures])
    pooled = np.concatenate([predictor.predict(one[np.newaxis]).features.mean(axis=(1, 2)) for one in inputs])
    unlike = check_inputs(predictor.info.sources, inputs, pooled)[0] > 1
    return float(no_lungs.mean()), float(unlike.mean()), float((no_lungs | unlike).mean())


def measure_credibility(model: OutlineModel, args: argparse.Namespace) -> None:
    predictor = Predictor(args.model_path)
    print(f"{'':<44}{'pictures':>9}{'no lungs':>10}{'input check':>13}{'either':>9}")

    def show(name: str, pictures: Pictures) -> None:
        found = shares(model, predictor, pictures)
        print(f"{name:<44}{len(pictures):>9}{found[0]:>10.1%}{found[1]:>13.1%}{found[2]:>9.1%}", flush=True)

    for name, table, folder in args.set:
        radiographs = read_set(Path(table), Path(folder), args.limit)
        show(f"{name} (false alarms)", radiographs)
        for change_name, change in (CHANGES | HALVES).items():
            show(f"  {name}, {change_name}", [change(picture) for picture in radiographs])
    for name, pictures in drawn_pictures():
        show(name, pictures)
    show("photographs", photographs(None))


def show_hearts(name: str, hearts: Hearts) -> None:
    """Print how the ratio ranks Cardiomegaly, and the outlined hearts' widths beside the boxes'."""
    known = ~np.isnan(hearts.ratios)
    ratios, labels = hearts.ratios[known], hearts.labels[known]
    patients = [patient for patient, one in zip(hearts.patients, known, strict=True) if one]
    area = estimate_rankings(labels[:, np.newaxis], ratios[:, np.newaxis], patients).auroc[0]
    print(
        f"{name}: ratio for {known.sum()} of {len(known)} radiographs; alone it ranks Cardiomegaly "
        f"({int(labels.sum())}) with an AUROC of {area.value:.3f} ({area.low:.3f} to {area.high:.3f}); median "
        f"{np.median(ratios[labels == 1]):.3f} with the label, {np.median(ratios[labels == 0]):.3f} without"
    )
    boxed = np.flatnonzero(~np.isnan(hearts.box_ratios))
    if len(boxed) < 3:
        return
    found, drawn = hearts.ratios[boxed], hearts.box_ratios[boxed]
    weights = np.concatenate(list(resample_weights([hearts.patients[k] for k in boxed], 1000, 0))).astype(int)
    medians = [np.median(np.repeat(found / drawn, one)) for one in weights]
    low, high = np.percentile(medians, [2.5, 97.5])
    print(
        f"{name}: {len(boxed)} boxes; heart's width over the box's: median {np.median(found / drawn):.2f} ({low:.2f} "
        f"to {high:.2f}), smallest {(found / drawn).min():.2f}, largest {(found / drawn).max():.2f}; median ratio "
        f"{np.median(found):.2f} by outlines, {np.median(drawn):.2f} by boxes, correlation "
        f"{np.corrcoef(found, drawn)[0, 1]:.2f}"
    )


def measure_time(model: OutlineModel) -> None:
    radiograph = np.random.default_rng(0).integers(0, 256, (1024, 1024), np.uint8)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        model.outline(radiograph)
        times.append(time.perf_counter() - started)
    print(f"an outline of a radiograph of 1024 x 1024: median {1e3 * np.median(times):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomy-path", type=Path, default=ROOT / "model" / "anatomy.h5", metavar="FILE",
                        help="the outline network's file (default: the shipped one)")  # fmt: skip
    parser.add_argument("--model-path", type=Path, default=MODEL_PATH, metavar="FILE",
                        help="the classifier, for its input check (default: the shipped one)")  # fmt: skip
    parser.add_argument("--outlined", type=Path, metavar="DIR", help="radiographs that readers outlined")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="with --outlined: the worst ten and 30 others, drawn")
    parser.add_argument("--phantom", type=Path, metavar="DIR", help="a phantom's pictures with masks; its test split")
    parser.add_argument(
        "--set", nargs=3, action="append", metavar=("NAME", "CSV", "DIR"), help="radiographs; may be repeated"
    )
    parser.add_argument("--hearts", nargs=3, action="append", type=Path, metavar=("CSV", "DIR", "BOXES"),
                        help="labelled radiographs and boxes of Cardiomegaly; may be repeated")  # fmt: skip
    parser.add_argument("--limit", type=int, default=240, metavar="N", help="radiographs of each set (default: 240)")
    args = parser.parse_args()
    model = OutlineModel(args.anatomy_path)
    measure_time(model)
    if args.outlined:
        measure_outlined(model, args.outlined, args.sheet)
    if args.phantom:
        for name, scores in score_phantom(model.outline, args.phantom, "test_data.csv").items():
            print(f"phantom, {name}: {summary(scores)}")
    for table, folder, boxes in args.hearts or ():
        show_hearts(table.stem, measure_hearts(model.outline, table, folder, read_boxes(boxes)))
    if args.set:
        measure_credibility(model, args)


if __name__ == "__main__":
    main()
