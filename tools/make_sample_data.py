"""Make a data set of synthetic chest radiographs whose findings, and whose places, are known exactly.

    python -m tools.make_sample_data --out sample_out                 # the 840 images that this repository ships
    python -m tools.make_sample_data --count 10000 --seed 7 --out big # any other set
    python -m tools.make_sample_data --count 10000 --seed 8 --enrich Nodule --out nodules

Writes images/*.png, train-small.csv, val_data.csv, test_data.csv (split by patient) and sample_boxes.csv (NIH's
BBox_List format: x, y, width, height in the coordinates of a 1024 x 1024 picture). The same seed gives the same set.
With --masks also masks/*.png, coloured: red the right lung, green the left lung, blue the heart, 255 inside, as a
reader outlines them. The lungs go on behind the heart, where the colours mix, and end at the diaphragm.
"""

import argparse
import csv
import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # The AVX-512 functions of NumPy, and of OpenCV's IPP, round the last digit unlike the others: without them,
    # processors agree to the byte. Both variables are read when the libraries are imported; NumPy's names are those of
    # version 2.4 and of older ones, and unknown ones are ignored.
    AVX512 = "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL"
    os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", AVX512)
    os.environ.setdefault("OPENCV_IPP", "avx2")

import cv2
import numpy as np

from cxr.system.atomic_files import describe_error
from cxr.system.file_search import is_special
from cxr.system.progress import Progress
from cxr.system.terminal import fail
from tools.phantom.case import Box, Case, make_case
from tools.phantom.casemix import NAMES, draw_label_sets
from tools.phantom.thorax import draw_patient

DEFAULT_COUNT, DEFAULT_SIZE, DEFAULT_SEED = 840, 256, 20171113
# CSV name, share of the images, images that each finding gets at least (share of the split).
SPLITS = (("train-small.csv", 4 / 7, 0.054), ("val_data.csv", 1 / 7, 0.07), ("test_data.csv", 2 / 7, 0.066))
FOLLOW_UPS = (0.62, 0.22, 0.10, 0.06)  # share of patients with one, two, three, four examinations
BOXES_CSV = "sample_boxes.csv"
ENRICHED_FROM = 10


@dataclass(frozen=True)
class Examination:
    """One image to be made: everything that, with the seed and the size, determines it."""

    patient: int
    follow_up: int
    findings: tuple[str, ...]

    @property
    def image(self) -> str:
        return f"{self.patient:08d}_{self.follow_up:03d}.png"


def split_sizes(count: int) -> list[int]:
    """Images of each split of a set of `count`."""
    sizes = [round(count * share) for _, share, _ in SPLITS]
    sizes[0] += count - sum(sizes)
    return sizes


def plan_splits(count: int, seed: int) -> dict[str, list[Examination]]:
    """Draw patients, follow-ups and findings of each split; no patient is in two."""
    rng = np.random.default_rng([seed, 0])
    sizes = split_sizes(count)
    visits = [draw_visits(size, rng) for size in sizes]
    numbers = iter(rng.permutation(sum(map(len, visits))) + 1)
    plan = {}
    for (name, _, share), size, patients in zip(SPLITS, sizes, visits, strict=True):
        labels = iter(draw_label_sets(size, int(np.ceil(share * size)), rng))
        examinations = [
            Examination(number, follow_up, next(labels))
            for number, visit_count in ((int(next(numbers)), visit_count) for visit_count in patients)
            for follow_up in range(visit_count)
        ]
        plan[name] = sorted(examinations, key=lambda examination: examination.image)
    return plan


def plan_enriched(count: int, seed: int, finding: str) -> dict[str, list[Examination]]:
    """Plan a set in whose training split every second image shows `finding`, for learning what is rare or subtle.

    Chosen from a plan ENRICHED_FROM times as large; validation and test keep the mix of findings that they have there.
    """
    rng, plan = np.random.default_rng([seed, 3]), {}
    large = plan_splits(ENRICHED_FROM * count, seed)
    for (name, split), size in zip(large.items(), split_sizes(count), strict=True):
        chosen = [split[k] for k in rng.permutation(len(split))]
        if name == SPLITS[0][0]:
            shown = [examination for examination in chosen if finding in examination.findings]
            chosen = shown[: size // 2] + [examination for examination in chosen if finding not in examination.findings]
        plan[name] = sorted(chosen[:size], key=lambda examination: examination.image)
    return plan


def draw_visits(images: int, rng: np.random.Generator) -> list[int]:
    """Draw how many examinations each patient has until there are `images` in all."""
    visits = []
    while sum(visits) < images:
        visits.append(min(int(rng.choice(4, p=FOLLOW_UPS)) + 1, images - sum(visits)))
    return visits


def examine(examination: Examination, seed: int, size: int) -> Case:
    """Make one image; the patient's body is the same at each follow-up."""
    patient = draw_patient(np.random.default_rng([seed, 1, examination.patient]))
    rng = np.random.default_rng([seed, 2, examination.patient, examination.follow_up])
    return make_case(patient, examination.findings, size, rng)


def encode_png(radiograph: np.ndarray) -> bytes:
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]
    return cv2.imencode(".png", radiograph, settings)[1].tobytes()


def encode_outlines(outlines: np.ndarray) -> bytes:
    """Encode boolean (3, size, size), right lung, left lung and heart, as red, green and blue."""
    blue_green_red = np.ascontiguousarray(outlines[::-1].transpose(1, 2, 0))  # OpenCV's order
    return encode_png(blue_green_red.astype(np.uint8) * 255)


def make_file(
    examination: Examination, seed: int, size: int, folder: Path, masks: Path | None = None
) -> tuple[Box, ...]:
    """Make one image and write it, and its outlines where a folder for them is given; returns its boxes."""
    cv2.setNumThreads(1)
    case = examine(examination, seed, size)
    (folder / examination.image).write_bytes(encode_png(case.radiograph))
    if masks is not None:
        (masks / examination.image).write_bytes(encode_outlines(case.outlines))
    return case.boxes


def split_csv(examinations: list[Examination]) -> str:
    """The CSV of one split: Image, one 0/1 column per finding, Patientid."""
    rows = [[e.image, *(int(name in e.findings) for name in NAMES), e.patient] for e in examinations]
    return as_csv([["Image", *NAMES, "Patientid"], *rows])


def boxes_csv(boxes: dict[str, tuple[Box, ...]]) -> str:
    """All boxes in NIH's BBox_List format."""
    rows = [
        [image, box.finding, *(f"{value:g}" for value in (box.x, box.y, box.width, box.height))]
        for image, found in boxes.items()
        for box in found
    ]
    # NIH's header has one bracketed name for four columns and three empty ones after them.
    return "Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + as_csv(rows)


def as_csv(rows: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sample_out"), help="folder to write to (default: sample_out)")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT, help=f"images in all (default: {DEFAULT_COUNT})")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help=f"pixels per side (default: {DEFAULT_SIZE})")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help=f"(default: {DEFAULT_SEED})")
    parser.add_argument("--enrich", choices=NAMES, metavar="FINDING", help="let every second training image show it")
    parser.add_argument("--masks", action="store_true", help="write the outlines of lungs and heart too")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--overwrite", action="store_true", help="replace CSV files that hold something else")
    args = parser.parse_args()
    if args.count < 3 or not 64 <= args.size <= 2048 or args.seed < 0 or args.workers < 1:
        parser.error("expected --count of at least 3, --size from 64 to 2048, --seed >= 0 and --workers >= 1")
    return args


def make_set(args: argparse.Namespace) -> None:
    """Write what the command line asks for. Raises: OSError."""
    plan = plan_enriched(args.count, args.seed, args.enrich) if args.enrich else plan_splits(args.count, args.seed)
    texts = {name: split_csv(examinations) for name, examinations in plan.items()}
    for name, text in texts.items():
        path = args.out / name
        if not args.overwrite and path.exists() and (is_special(path) or _lines_of(path) != text.encode().splitlines()):
            sys.exit(f"{path} exists and holds other data. Choose another --out, or add --overwrite to replace it.")
    folder, masks = args.out / "images", args.out / "masks" if args.masks else None
    for one in (folder, masks):
        if one is not None:
            one.mkdir(parents=True, exist_ok=True)
    examinations = sorted((e for split in plan.values() for e in split), key=lambda e: e.image)
    work = partial(make_file, seed=args.seed, size=args.size, folder=folder, masks=masks)
    with ProcessPoolExecutor(args.workers) as pool:
        progress, found = Progress("radiographs", len(examinations)), []
        for boxes_of_one in pool.map(work, examinations, chunksize=4):
            found.append(boxes_of_one)
            progress.show(len(found))
    boxes = {e.image: found_boxes for e, found_boxes in zip(examinations, found, strict=True)}
    for name, text in {**texts, BOXES_CSV: boxes_csv(boxes)}.items():
        (args.out / name).write_text(text, encoding="utf-8", newline="\n")
    for name, split in plan.items():
        print(f"{name}: {len(split)} images of {len({e.patient for e in split})} patients, "
              f"{sum(not e.findings for e in split)} without finding, "
              f"{min(sum(name in e.findings for e in split) for name in NAMES)} or more of each finding")  # fmt: skip
    print(f"{BOXES_CSV}: {sum(map(len, found))} boxes; images in {folder}")


def _lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def main() -> int:
    args = parse_args()
    try:
        make_set(args)
    except OSError as error:
        return fail(describe_error(error), 3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
