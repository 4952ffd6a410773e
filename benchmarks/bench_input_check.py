"""How often the input check raises its flag, by kind of picture, and which source it takes a picture for.

    python -m benchmarks.bench_input_check
    python -m benchmarks.bench_input_check --set nih test_data.csv DIR_OF_RADIOGRAPHS --photos DIR_OF_PHOTOGRAPHS

Each --set is a CSV with an image column and the folder of its images; by default the sample's test split. As they are,
its pictures give the rate of false alarms. Every other row is something that the model was not trained on, most of them
made from these pictures. Photographs are the two that scikit-learn brings, those of scikit-image where that is
installed, and those of --photos; nine pieces of each. Knees and hands are drawn.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")

from benchmarks.limb_pictures import SIDE, hand, knee
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.inference.predictor import Predictor
from cxr.network.input_check import check_inputs
from cxr.system.csv_table import read_rows
from gradcam import MODEL_PATH

ROOT = Path(__file__).resolve().parents[1]
NUM_MADE = 60  # pictures of each kind that is drawn and not taken from a file
SKIMAGE_PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket", "coins", "brick", "grass", "gravel")

Pictures = list[np.ndarray]  # uint8 (height, width) each

CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda picture: picture[::-1],
    "turned by 90 degrees": np.rot90,
    "turned by 180 degrees": lambda picture: np.rot90(picture, 2),
    "turned by 270 degrees": lambda picture: np.rot90(picture, 3),
    "inverted (bone dark)": lambda picture: 255 - picture,
    "mirrored left to right": lambda picture: picture[:, ::-1],
    "upper left quarter only": lambda picture: picture[: picture.shape[0] // 2, : picture.shape[1] // 2],
    "with heavy noise": lambda picture: _clipped(picture + np.random.default_rng(1).normal(0, 40, picture.shape)),
    "blurred": lambda picture: cv2.GaussianBlur(picture, (0, 0), picture.shape[0] / 40),
}


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def coloured_noise(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Draw noise whose amplitude falls with frequency ** -exponent: 0 white, 1 pink, 2 brown."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, np.newaxis], np.fft.rfftfreq(SIDE))
    frequency[0, 0] = 1
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / frequency**exponent, s=(SIDE, SIDE))
    return _clipped(128 + 50 * (noise - noise.mean()) / noise.std())


def page_of_text(rng: np.random.Generator) -> np.ndarray:
    page = np.full((SIDE, SIDE), 255, np.uint8)
    for row in range(40, SIDE, 28):
        line = "".join(rng.choice(list("abcdefghijklmnopqrstuvw     "), 40))
        cv2.putText(page, line, (20, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
    return page


def drawn_pictures() -> Iterator[tuple[str, Pictures]]:
    rng = np.random.default_rng(0)
    for name, exponent in (("white noise", 0), ("pink noise", 1), ("brown noise", 2)):
        yield name, [coloured_noise(rng, exponent) for _ in range(NUM_MADE)]
    yield "page of text", [page_of_text(rng) for _ in range(NUM_MADE)]
    yield "knees", [knee(rng) for _ in range(NUM_MADE)]
    yield "hands", [hand(rng) for _ in range(NUM_MADE)]
    yield "almost blank", [_clipped(rng.uniform(20, 235) + rng.normal(0, 3, (SIDE, SIDE))) for _ in range(NUM_MADE)]


def photographs(folder: Path | None) -> Pictures:
    """Nine overlapping pieces, half as long and wide, of each photograph at hand."""
    from sklearn.datasets import load_sample_images

    whole = [_grey(image) for image in load_sample_images().images]
    if importlib.util.find_spec("skimage"):
        from skimage import data

        whole += [_grey(getattr(data, name)()) for name in SKIMAGE_PHOTOS]
    if folder is not None:
        found = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.*"))]
        whole += [picture for picture in found if picture is not None]
    return [
        photo[
            row * height // 4 : row * height // 4 + height // 2, column * width // 4 : column * width // 4 + width // 2
        ]
        for photo in whole
        for height, width in [photo.shape]
        for row in range(3)
        for column in range(3)
    ]


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2GRAY)


def read_set(table: Path, folder: Path, limit: int) -> Pictures:
    """Read up to `limit` radiographs of a CSV, evenly chosen by its order."""
    names = [row["Image"] for row in read_rows(table)]
    return [read_radiograph(folder / name) for name in names[:: -(-len(names) // limit)]]


def check_pictures(predictor: Predictor, pictures: Pictures) -> tuple[float, list[float]]:
    """Return the share of pictures that are flagged, and the share of those that are taken for each source."""
    sources = predictor.info.sources
    inputs = np.stack([to_model_input(np.ascontiguousarray(one), predictor.info.image_size) for one in pictures])
    pooled = np.concatenate([predictor.predict(one[np.newaxis]).features.mean(axis=(1, 2)) for one in inputs])
    unlike, resembled = check_inputs(sources, inputs, pooled)
    return float((unlike > 1).mean()), [float((resembled == position).mean()) for position in range(len(sources))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model-path", type=Path, default=MODEL_PATH, metavar="FILE", help="(default: the shipped one)"
    )
    parser.add_argument(
        "--set",
        nargs=3,
        action="append",
        metavar=("NAME", "CSV", "DIR"),
        help="radiographs that the model should know; may be repeated (default: the sample's test split)",
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="folder of photographs")
    parser.add_argument("--limit", type=int, default=240, metavar="N", help="radiographs of each set (default: 240)")
    args = parser.parse_args()
    predictor = Predictor(args.model_path)
    sources = [source.name or "training" for source in predictor.info.sources if source.features is not None]
    if not sources:
        raise SystemExit(f"{args.model_path}: holds no statistics for the input check. Train again with main_train.py.")
    print(f"{'share flagged':<44}{'pictures':>9}{'flagged':>9}" + "".join(f"{f'like {name}':>16}" for name in sources))

    def show(name: str, pictures: Pictures) -> None:
        flagged, resembled = check_pictures(predictor, pictures)
        print(
            f"{name:<44}{len(pictures):>9}{flagged:>9.1%}" + "".join(f"{share:>16.1%}" for share in resembled),
            flush=True,
        )

    for name, table, folder in args.set or [("sample", ROOT / "test_data.csv", ROOT / "images")]:
        radiographs = read_set(Path(table), Path(folder), args.limit)
        show(f"{name} (false alarms)", radiographs)
        for change_name, change in CHANGES.items():
            show(f"  {name}, {change_name}", [change(picture) for picture in radiographs])
    for name, pictures in drawn_pictures():
        show(name, pictures)
    show("photographs", photographs(args.photos))


if __name__ == "__main__":
    main()
