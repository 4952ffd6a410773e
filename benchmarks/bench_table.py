"""gradcam.py over a folder beside the model alone, and what a wide predictions.csv, boxes and zones cost, in turns.

    python -m benchmarks.bench_table                                  # 20 turns of 100 images each
    python -m benchmarks.bench_table --count 10000 --whole            # the narrow and the wide table, a large folder
    python -m benchmarks.bench_table --count 10000 --whole model      # the narrow table and the model alone

Model and pictures are the shipped ones, and the model is loaded once, so that only answers and outputs are timed.
The model alone gives its probabilities for one radiograph in memory as often as there are files, in as many threads as
gradcam.py has: no file is read or decoded, nothing is resized, drawn or written. Every turn answers the same files with
each kind of output, in an order drawn anew, so that whatever else the machine does falls on all of them alike: compare
the ratios, which are medians over turns. Where much else runs, the processor's own time is the steadier of the two.
Zones ask a second network, which is loaded in every turn.

With --whole two processes do the whole folder, each stopped while the other computes, a few seconds in turn, so that
both see the same machine from their start to their end, loading the model included (POSIX alone).
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from cxr.inference.backend import choose_inference_backend
from cxr.inference.table_columns import COLUMNS

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
MODEL = "the model alone"
NARROW, WIDE, BOXES, ZONES = "probabilities", "wide table", "wide table, and boxes", "wide table, and zones"
SLICE_SECONDS, TICK_SECONDS = 3.0, 0.05
OF_THE_MODEL = ",".join(column for column in COLUMNS if column != "zone")
OPTIONS = {
    NARROW: [],
    WIDE: ["--columns", OF_THE_MODEL],
    BOXES: ["--columns", OF_THE_MODEL, "--boxes-out", "boxes.csv"],
    ZONES: ["--columns", ",".join(COLUMNS)],
}


def make_folder(folder: Path, image_dir: Path, count: int) -> None:
    """Fill a folder with `count` files: the pictures of another one, again and again, under names of their own."""
    pictures = sorted(image_dir.glob("*.png"))
    for number, picture in zip(range(count), cycle(pictures), strict=False):
        target = folder / f"{number:05}.png"
        try:
            os.link(picture, target)
        except OSError:  # another disk
            shutil.copyfile(picture, target)


def ask_model_alone(predictor: "Predictor", count: int) -> None:
    """Let the model answer for one radiograph in memory `count` times, in the threads in which gradcam.py asks it."""
    from cxr.imaging.radiograph import read_radiograph, to_model_input
    from cxr.inference.answer_table import work_ahead

    picture = next((ROOT / "images").glob("*.png"))
    model_input = to_model_input(read_radiograph(picture), predictor.info.image_size)[np.newaxis]
    for _, result in work_ahead([picture] * count, lambda _: predictor.predict(model_input)):
        if isinstance(result, Exception):
            raise result


def time_turns(contestants: dict[str, Callable[[str], None]], turns: int) -> dict[str, list[tuple[float, float]]]:
    """Return each turn's seconds by the clock and by the processor; each contestant is told a folder for its files."""
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in contestants}
    order = list(contestants)
    for _ in range(turns):
        random.shuffle(order)
        for kind in order:
            with tempfile.TemporaryDirectory() as out, contextlib.chdir(out):
                start, used = time.perf_counter(), time.process_time()
                contestants[kind](out)
                seconds[kind].append((time.perf_counter() - start, time.process_time() - used))
    return seconds


def time_whole(folder: Path, kinds: Sequence[str], count: int) -> dict[str, tuple[float, float]]:
    """Return for each contestant the seconds that its run was let compute, and those of the processor."""
    awake = dict.fromkeys(kinds, 0.0)
    with tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as ending:
        runs = {}
        for number, kind in enumerate(kinds):
            if kind == MODEL:
                command = [sys.executable, "-m", "benchmarks.bench_table", "--alone", str(count)]
            else:
                options = ["--top", "0", "--out", f"{out}/{number}", *OPTIONS[kind]]
                command = [sys.executable, ROOT / "gradcam.py", folder, *options]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            runs[kind] = subprocess.Popen(command, cwd=ROOT, **quiet)
            ending.callback(runs[kind].kill)
            runs[kind].send_signal(signal.SIGSTOP)
        used: dict[str, float] = {}
        while waiting := [kind for kind in kinds if kind not in used]:
            for kind in waiting:
                seconds, used_by_ended = _let_compute(runs[kind])
                awake[kind] += seconds
                if used_by_ended is not None:
                    used[kind] = used_by_ended
    return {kind: (awake[kind], used[kind]) for kind in kinds}


def _let_compute(run: subprocess.Popen) -> tuple[float, float | None]:
    """Let a stopped process go on for a slice; return the slice's seconds, and the processor's where it has ended."""
    run.send_signal(signal.SIGCONT)
    seconds, last = 0.0, time.perf_counter()
    while seconds < SLICE_SECONDS:
        time.sleep(TICK_SECONDS)
        now = time.perf_counter()
        seconds, last = seconds + min(now - last, 4 * TICK_SECONDS), now  # all may have been stopped meanwhile
        pid, status, usage = os.wait4(run.pid, os.WNOHANG)
        if pid:
            run.returncode = os.waitstatus_to_exitcode(status)
            if run.returncode:
                raise SystemExit(f"{run.args} ended with {run.returncode}")
            return seconds, usage.ru_utime + usage.ru_stime
    run.send_signal(signal.SIGSTOP)
    return seconds, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, metavar="N", help="images of a turn (default: 100)")
    parser.add_argument("--turns", type=int, default=20, metavar="N", help="turns of each kind (default: 20)")
    parser.add_argument("--image-dir", type=Path, default=ROOT / "images", metavar="DIR", help="(default: images)")
    parser.add_argument(
        "--whole", nargs="?", const="wide", choices=("wide", "model"), help="one run of the narrow table beside another"
    )
    parser.add_argument("--alone", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.whole:
        print_whole((MODEL, NARROW) if args.whole == "model" else (NARROW, WIDE), args)
        return
    choose_inference_backend()
    import gradcam
    from cxr.inference.predictor import Predictor

    predictor = Predictor(gradcam.MODEL_PATH, side_by_side=True)
    if args.alone:
        ask_model_alone(predictor, args.alone)
    else:
        print_turns(predictor, gradcam.main, args)


def print_whole(kinds: tuple[str, str], args: argparse.Namespace) -> None:
    """Time one run of each of two contestants over the folder, and print both and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), args.image_dir, args.count)
        seconds = time_whole(Path(folder), kinds, args.count)
    for kind, (clock, used) in seconds.items():
        print(f"{kind:20}{args.count} images in {clock:.1f} s ({args.count / clock:.1f} images/s), {used:.1f} s CPU")
    clocks, cpus = zip(*seconds.values(), strict=True)
    print(f"{kinds[0]} over {kinds[1]}: clock {clocks[0] / clocks[1]:.3f}, CPU {cpus[0] / cpus[1]:.3f}")


def print_turns(predictor: "Predictor", main_of_gradcam: Callable[[list[str]], int], args: argparse.Namespace) -> None:
    """Time every contestant in turns, and print its rate and the ratios to the narrow table's time."""

    def answer(kind: str, folder: str, out: str) -> None:
        arguments = [folder, "--top", "0", "--out", out, *OPTIONS[kind]]
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            code = main_of_gradcam(arguments)
        if code:
            raise SystemExit(f"gradcam.py ended with {code}: {' '.join(arguments)}")

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("cxr.inference.predictor.Predictor", lambda *_, **__: predictor),
    ):
        make_folder(Path(folder), args.image_dir, args.count)
        with tempfile.TemporaryDirectory() as warm:
            answer(NARROW, folder, warm)
        contestants: dict[str, Callable[[str], None]] = {MODEL: lambda _: ask_model_alone(predictor, args.count)}
        contestants |= {kind: partial(answer, kind, folder) for kind in OPTIONS}
        seconds = time_turns(contestants, args.turns)
    print(f"{args.turns} turns of {args.count} images, {predictor.engine}")
    for kind, times in seconds.items():
        rate = args.count / statistics.median(clock for clock, _ in times)
        pairs = [(np.array(own) / narrow).tolist() for narrow, own in zip(seconds[NARROW], times, strict=True)]
        said = [
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            for ratios in zip(*pairs, strict=True)
        ]
        print(f"  {kind:24}{rate:6.1f} images/s; its time over the narrow table's: clock {said[0]}, CPU {said[1]}")


if __name__ == "__main__":
    main()
