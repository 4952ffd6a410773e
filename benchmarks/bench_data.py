"""Measure the data path: decoding, batches, and what they add to an epoch, beside the usual Keras pipelines.

    python -m benchmarks.bench_data                                    # the sample's images
    python -m benchmarks.bench_data --image-dir nih/images --image-size 224

All contestants do the same work on the same files in one run, in turns, and medians are printed: on a busy machine the
ratios hold, the absolute figures do not. Contestants: this project's warm cache; `flow_from_dataframe` of Keras 2's
ImageDataGenerator, which decodes in every epoch; tf.data decoding in every epoch; tf.data with `cache()` in memory.
"""

import argparse
import collections
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np

from benchmarks.classic_pipelines import flow_from_dataframe, tf_data
from cxr.data.batches import RadiographBatches, prepare_ahead
from cxr.data.cache import cache_split
from cxr.data.labels import Split
from cxr.imaging.radiograph import read_radiograph, to_model_input
from cxr.network.densenet import build_network
from cxr.training import loop
from cxr.training.recipe import Recipe
from cxr.training.run_control import StopRequest

NIH_IMAGES, NIH_TRAIN_IMAGES = 112_120, 77_864
FINDINGS = tuple(f"finding {k}" for k in range(14))
TARGET_RATIO = 1.03  # epoch over pure training steps
OURS = "this project, warm cache"


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every contestant, `repeats` times in turns, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            seconds = seconds_of(work)
            if turn:
                times[name].append(seconds)
    return times


def make_split(image_dir: Path, count: int) -> Split:
    """List `count` images of a folder, again from the start where it has fewer, with random labels."""
    names = sorted(path.name for path in image_dir.glob("*.png"))
    if not names:
        raise SystemExit(f"{image_dir}: no PNG found. Name a folder of radiographs with --image-dir.")
    images = tuple(itertools.islice(itertools.cycle(names), count))
    labels = np.random.default_rng(0).integers(0, 2, (count, len(FINDINGS))).astype(np.float32)
    return Split("bench", images, images, labels, FINDINGS)


def bench_decoding(split: Split, image_dir: Path, size: int, repeats: int) -> float:
    """Print images per second from files to model inputs; return the project's."""
    files = [image_dir / image for image in split.images]

    def raw(file: Path) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)

    def in_threads(decode: Callable[[Path], np.ndarray]) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, files):
                pass

    def build_cache() -> None:
        with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
            cache_split(split, image_dir, size, folder)

    cv2.setNumThreads(1)
    times = in_turns(
        {
            "OpenCV alone, unchecked (the floor)": lambda: in_threads(raw),
            "the project's checked decoder": lambda: in_threads(
                lambda file: to_model_input(read_radiograph(file), size)
            ),
            "cache build: decoder, digest, disk": build_cache,
        },
        repeats,
    )
    print(f"\nFiles to model inputs, {os.cpu_count()} threads: images/s, time over the floor's")
    print_table(times, len(files))
    return len(files) / statistics.median(times["cache build: decoder, digest, disk"])


def print_table(times: dict[str, list[float]], num_images: int) -> None:
    """Print every contestant's images per second, and the median over the turns of its time over the first one's."""
    first = next(iter(times.values()))
    for name, seconds in times.items():
        ratio = statistics.median(own / base for own, base in zip(seconds, first, strict=True))
        print(f"  {name:<40}{num_images / statistics.median(seconds):>9.1f}{ratio:>8.3f}", flush=True)


def make_pipelines(batches: RadiographBatches, image_dir: Path) -> dict[str, Callable[[], Iterable]]:
    """The contestants: name -> one epoch of augmented batches."""
    split, size, batch_size = batches.cached.split, batches.cached.image_size, batches.batch_size
    return {
        OURS: lambda: (batch for _, batch in prepare_ahead(batches, 0)),
        "flow_from_dataframe": flow_from_dataframe(split, image_dir, size, batch_size),
        "tf.data, decoding every epoch": tf_data(split, image_dir, size, batch_size, cache=False),
        "tf.data, cache() in memory": tf_data(split, image_dir, size, batch_size, cache=True),
    }


def bench_batches(pipelines: dict[str, Callable[[], Iterable]], num_images: int, repeats: int) -> float:
    """Print batches per second without training; return the project's, in images/s."""
    contestants = {name: lambda make=make: collections.deque(make(), maxlen=0) for name, make in pipelines.items()}
    times = in_turns(contestants, repeats)
    print("\nAugmented batches alone, no training: images/s, time over this project's")
    print_table(times, num_images)
    return num_images / statistics.median(times[OURS])


def bench_epochs(
    batches: RadiographBatches, pipelines: dict[str, Callable[[], Iterable]], num_images: int, repeats: int
) -> float:
    """Print epochs beside the same training steps on data in memory; return the latter in images/s.

    The project's epoch is the training loop's own, with its checks after every batch.
    """
    recipe = Recipe(epochs=repeats + 2, batch_size=batches.batch_size)
    network = build_network(FINDINGS, batches.cached.image_size)
    logits = loop.layer_output(network, "logits")
    run = loop._Run(network, logits, logits, batches, batches.cached, recipe, Path(), {}, [])
    loop._enter_phase(run)
    in_memory = [batches[index] for index in range(len(batches))]

    def train_on(pipeline: Iterable) -> None:
        for batch in pipeline:
            logits.train_on_batch(*batch)

    def own_epoch() -> None:
        run.saved_at = time.monotonic()  # no checkpoint on the way
        loop._train_epoch(run, StopRequest())
        run.state = loop.RunState(epoch=run.state.epoch + 1)

    contestants = {"training steps alone, data in memory": lambda: train_on(in_memory), OURS: own_epoch}
    contestants |= {name: lambda make=make: train_on(make()) for name, make in pipelines.items() if name != OURS}
    times = in_turns(contestants, repeats)
    size = batches.cached.image_size
    print(
        f"\nEpochs of {len(batches)} steps of {batches.batch_size} at {size} x {size}: images/s, time over the steps' "
        f"(target {TARGET_RATIO})"
    )
    print_table(times, num_images)
    return num_images / statistics.median(times["training steps alone, data in memory"])


def extrapolate(decoded: float, batched: float, trained: float, size: int) -> None:
    """Print what these speeds, in images/s, mean for the whole data set."""
    print("\nThe whole of NIH ChestX-ray14 at these speeds, from files of this kind (NIH's own are 1024 x 1024)")
    print(f"  cache, once: {NIH_IMAGES / decoded / 60:.0f} minutes, {NIH_IMAGES * size**2 / 1e9:.1f} GB on disk")
    print(f"  an epoch over {NIH_TRAIN_IMAGES:,} images on this machine: {NIH_TRAIN_IMAGES / trained / 3600:.1f} hours")
    print(
        f"  on a GPU: as long as its own training steps, but not below {NIH_TRAIN_IMAGES / batched / 60:.1f} minutes: "
        f"these processors prepare {batched:,.0f} images/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--image-dir", type=Path, default=root / "images", metavar="DIR", help="(default: images)")
    parser.add_argument("--image-size", type=int, default=128, metavar="PIXELS", help="(default: 128)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--count", type=int, default=240, metavar="N", help="images to decode (default: 240)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="training steps per epoch (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns that count (default: 5)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} processors, load {load:.1f}")
    split = make_split(args.image_dir, max(args.count, args.steps * args.batch_size))
    decoded = bench_decoding(split, args.image_dir, args.image_size, args.repeats)
    used = split.select(np.arange(len(split.images)) < args.steps * args.batch_size)
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        cached = cache_split(used, args.image_dir, args.image_size, folder)
        batches = RadiographBatches(cached, args.batch_size, training=True)
        pipelines = make_pipelines(batches, args.image_dir)
        batched = bench_batches(pipelines, len(cached), args.repeats)
        trained = bench_epochs(batches, pipelines, len(cached), args.repeats)
    extrapolate(decoded, batched, trained, args.image_size)


if __name__ == "__main__":
    main()
