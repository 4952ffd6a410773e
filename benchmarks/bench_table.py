"""gradcam.py over a folder: what a wide predictions.csv, boxes and zones cost, beside the narrow table, in turns.

    python -m benchmarks.bench_table                            # 20 turns of 100 images each
    python -m benchmarks.bench_table --count 10000 --whole      # one run of each table over a large folder

Model and pictures are the shipped ones, and the model is loaded once, so that only answers and outputs are timed.
Every turn answers the same files with each kind of output, in an order drawn anew, so that whatever else the machine
does falls on all of them alike: compare the ratios, which are medians over turns. Where much else runs, the
processor's own time is the steadier of the two. Zones ask a second network, which is loaded in every turn.

With --whole two processes answer the whole folder, the narrow table and the wide one; each is stopped while the other
computes, a few seconds in turn, so that both see the same machine from their start to their end (POSIX alone).
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
from itertools import cycle
from pathlib import Path
from unittest import mock

import numpy as np

from cxr.inference.backend import choose_inference_backend
from cxr.inference.table_columns import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
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


def time_turns(answer: Callable[[list[str]], None], folder: Path, turns: int) -> dict[str, list[tuple[float, float]]]:
    """Return each turn's seconds by the clock and by the processor, for each kind of output."""
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in OPTIONS}
    order = list(OPTIONS)
    for _ in range(turns):
        random.shuffle(order)
        for kind in order:
            with tempfile.TemporaryDirectory() as out, contextlib.chdir(out):
                start, used = time.perf_counter(), time.process_time()
                answer([str(folder), "--top", "0", "--out", out, *OPTIONS[kind]])
                seconds[kind].append((time.perf_counter() - start, time.process_time() - used))
    return seconds


def time_whole(folder: Path, kinds: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return for each kind of output the seconds that its run was let compute, and those of the processor."""
    awake = dict.fromkeys(kinds, 0.0)
    with tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as ending:
        runs = {}
        for number, kind in enumerate(kinds):
            command = [sys.executable, ROOT / "gradcam.py", folder, "--top", "0", "--out", f"{out}/{number}"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            runs[kind] = subprocess.Popen([*command, *OPTIONS[kind]], **quiet)
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
                raise SystemExit(f"gradcam.py ended with {run.returncode}")
            return seconds, usage.ru_utime + usage.ru_stime
    run.send_signal(signal.SIGSTOP)
    return seconds, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, metavar="N", help="images of a turn (default: 100)")
    parser.add_argument("--turns", type=int, default=20, metavar="N", help="turns of each kind (default: 20)")
    parser.add_argument("--image-dir", type=Path, default=ROOT / "images", metavar="DIR", help="(default: images)")
    parser.add_argument("--whole", action="store_true", help="one run of each of the two tables, beside each other")
    args = parser.parse_args()
    if args.whole:
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder), args.image_dir, args.count)
            seconds = time_whole(Path(folder), (NARROW, WIDE))
        for kind, (clock, used) in seconds.items():
            print(
                f"{kind:20}{args.count} images in {clock:.1f} s ({args.count / clock:.1f} images/s), {used:.1f} s CPU"
            )
        clocks, cpus = zip(*seconds.values(), strict=True)
        print(f"narrow over wide: clock {clocks[0] / clocks[1]:.3f}, CPU {cpus[0] / cpus[1]:.3f}")
        return
    choose_inference_backend()
    import gradcam
    from cxr.inference.predictor import Predictor

    predictor = Predictor(gradcam.MODEL_PATH, side_by_side=True)

    def answer(arguments: list[str]) -> None:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            code = gradcam.main(arguments)
        if code:
            raise SystemExit(f"gradcam.py ended with {code}: {' '.join(arguments)}")

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("cxr.inference.predictor.Predictor", lambda *_, **__: predictor),
    ):
        make_folder(Path(folder), args.image_dir, args.count)
        answer([folder, "--top", "0", "--out", f"{folder}/warm"])
        shutil.rmtree(f"{folder}/warm")
        seconds = time_turns(answer, Path(folder), args.turns)
    print(f"{args.turns} turns of {args.count} images, {predictor.engine}")
    for kind, times in seconds.items():
        rate = args.count / statistics.median(clock for clock, _ in times)
        pairs = [(np.array(narrow) / own).tolist() for narrow, own in zip(seconds[NARROW], times, strict=True)]
        said = [
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            for ratios in zip(*pairs, strict=True)
        ]
        print(f"  {kind:24}{rate:6.1f} images/s; the narrow table's time over its own: clock {said[0]}, CPU {said[1]}")


if __name__ == "__main__":
    main()
