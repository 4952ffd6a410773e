"""Measure a training step and the way to the first one, beside plain Keras and PyTorch.

    python -m benchmarks.bench_training
    python -m benchmarks.bench_training --image-size 224 --batch-size 32

All contestants train DenseNet121 on the same batch in turns, each in a process of its own, since TensorFlow and PyTorch
do not bear each other in one. Medians are printed, in CPU time as well, which says more on a busy machine. The floor is
the time that oneDNN counts inside this project's convolutions. Start-up is a fresh process, from its start to the end
of the first step. PyTorch is left out where it is not installed.
"""

import argparse
import collections
import contextlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from subprocess import PIPE

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # as main_train.py does, for equal bits

import numpy as np

FINDINGS = tuple(f"finding {k}" for k in range(14))
RATE, DECAY, CLIP_NORM = 1e-4, 1e-4, 1.0
OURS, KERAS, PYTORCH = "this project", "Keras' fit", "PyTorch"
TARGET_RATIO = 0.6  # of this project's step over the one of plain Keras in float32

Step = Callable[[], object]


def this_project(precision: str, model_inputs: np.ndarray, labels: np.ndarray) -> Step:
    """Return the step of main_train.py's second phase, everything open."""
    from cxr.network.densenet import SMALL_DATA_MOMENTUM, build_network, fuse
    from cxr.training.loop import layer_output
    from cxr.training.optimisation import make_loss, make_optimiser, make_steps

    network = fuse(build_network(FINDINGS, model_inputs.shape[1], SMALL_DATA_MOMENTUM, precision))
    steps = make_steps(layer_output(network, "logits"), make_optimiser(RATE, DECAY), [make_loss()], [1.0])
    return lambda: steps.take(model_inputs, labels, RATE)


def plain_keras(precision: str, model_inputs: np.ndarray, labels: np.ndarray) -> Step:
    """Return `fit` over one batch of Keras' own layers and optimiser."""
    import keras

    from cxr.network.densenet import SMALL_DATA_MOMENTUM, build_network
    from cxr.training.loop import layer_output

    trained = layer_output(build_network(FINDINGS, model_inputs.shape[1], SMALL_DATA_MOMENTUM, precision), "logits")
    optimiser = keras.optimizers.AdamW(RATE, weight_decay=DECAY, global_clipnorm=CLIP_NORM)
    trained.compile(optimiser, loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return lambda: trained.fit(model_inputs, labels, batch_size=len(labels), verbose=0)


def pytorch(precision: str, model_inputs: np.ndarray, labels: np.ndarray) -> Step:
    """Return a step of torchvision's DenseNet121 in the faster memory layout, under autocast for bfloat16."""
    import torch
    import torchvision

    network = torchvision.models.densenet121(weights=None, num_classes=labels.shape[1])
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)
    targets, grey = torch.from_numpy(labels), torch.from_numpy(model_inputs).permute(0, 3, 1, 2)

    def step() -> None:
        rgb = (grey.float() / 255).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(rgb), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimiser.step()

    return step


MAKERS = {OURS: this_project, KERAS: plain_keras, PYTORCH: pytorch}
PRECISIONS = ("mixed_bfloat16", "float32")


def make_step(name: str, image_size: int, batch_size: int) -> Step:
    """Build the contestant "program, precision" with a batch of noise."""
    program, precision = name.rsplit(", ", 1)
    rng = np.random.default_rng(0)
    model_inputs = rng.integers(0, 256, (batch_size, image_size, image_size, 1), np.uint8)
    labels = rng.integers(0, 2, (batch_size, len(FINDINGS))).astype(np.float32)
    return MAKERS[program](precision, model_inputs, labels)


def bench_steps(names: list[str], args: argparse.Namespace) -> None:
    """Print what an image costs in each contestant's step, and the ratio to plain Keras in float32."""
    wall, cpu = ({name: [] for name in names} for _ in range(2))
    with contextlib.ExitStack() as ending:
        children = {
            name: ending.enter_context(
                subprocess.Popen(command_of("--serve", name, args), stdin=PIPE, stdout=PIPE, text=True)
            )
            for name in names
        }
        for turn in range(args.repeats + 1):
            for name, child in children.items():
                print(file=child.stdin, flush=True)
                clock, used = (float(word) / args.batch_size * 1e3 for word in child.stdout.readline().split())
                if turn:  # the first builds the graph
                    wall[name].append(clock)
                    cpu[name].append(used)
    print(
        f"\nTraining step at {args.image_size} x {args.image_size}, batch {args.batch_size}: ms per image (medians of"
    )
    print(f"{args.repeats}) and the median ratio to {names[-1]}, turn by turn (target {TARGET_RATIO})")
    for name in names:
        ratios = [
            statistics.median(one / other for one, other in zip(times[name], times[names[-1]], strict=True))
            for times in (wall, cpu)
        ]
        print(
            f"  {name:28} clock {statistics.median(wall[name]):6.1f}  CPU {statistics.median(cpu[name]):6.1f}  "
            f"ratio {ratios[0]:.2f} by the clock, {ratios[1]:.2f} in CPU time"
        )


def command_of(mode: str, name: str, args: argparse.Namespace) -> list[str]:
    """Return the command of a process that runs one contestant."""
    command = [sys.executable, "-m", "benchmarks.bench_training", mode, name]
    return [*command, "--image-size", str(args.image_size), "--batch-size", str(args.batch_size)]


def run_child(mode: str, name: str, args: argparse.Namespace, **environment: str) -> list[str]:
    """Run one contestant in a process of its own; return the lines it prints."""
    command = command_of(mode, name, args)
    child = subprocess.run(command, env=os.environ | environment, stdout=PIPE, text=True, check=True)
    return child.stdout.splitlines()


def bench_start(names: list[str], args: argparse.Namespace) -> None:
    """Print what it costs from the start of a process to the end of its first step, and the first step alone."""
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for _ in range(args.startups):
        for name in names:
            started = time.perf_counter()
            cpu, *first = map(float, run_child("--start", name, args)[-1].split())
            seconds[name].append((time.perf_counter() - started, cpu, *first))
    print(f"\nFrom the start to the end of the first step, and that step: seconds (medians of {args.startups})")
    for name in names:
        clock, cpu, first_clock, first_cpu = map(statistics.median, zip(*seconds[name], strict=True))
        print(
            f"  {name:28} clock {clock:5.1f}  CPU {cpu:5.1f}   the step: clock {first_clock:5.1f}  CPU {first_cpu:5.1f}"
        )


def bench_floor(name: str, args: argparse.Namespace) -> None:
    """Print what a step spends in oneDNN's operations, by its own count, on one thread."""
    lines = run_child("--count", name, args, ONEDNN_VERBOSE="1", TF_NUM_INTRAOP_THREADS="1")
    times: collections.Counter[str] = collections.Counter()
    counting = False
    for line in lines:
        counting = counting or line == "counting"
        fields = line.split(",")
        if counting and "exec" in fields and fields[0] == "onednn_verbose":
            kind, direction = fields[fields.index("exec") + 2], fields[fields.index("exec") + 4]
            times[f"{kind} {direction}"] += float(fields[-1]) / args.batch_size
    print(f"\nInside oneDNN, {name}, one step on one thread: ms per image, of {lines[-1]} CPU ms in all")
    for kind, spent in times.most_common():
        print(f"  {kind:44} {spent:6.2f}")
    convolutions = sum(spent for kind, spent in times.items() if kind.startswith("convolution"))
    print(f"floor, the convolutions alone: {convolutions:.1f} ms per image")


def timed(step: Step) -> tuple[float, float]:
    """Take a step; return its seconds by the clock and by the processor."""
    started = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def child(args: argparse.Namespace) -> None:
    """Run one contestant, and print for the parent what it costs; with --count between marks that it looks for."""
    step = make_step(args.start or args.count or args.serve, args.image_size, args.batch_size)
    if args.serve:
        for _ in sys.stdin:
            print(*timed(step), flush=True)
        return
    first = timed(step)
    if args.start:
        print(time.process_time(), *first)
        return
    step()
    print("counting", flush=True)
    print(f"\n{timed(step)[1] / args.batch_size * 1e3:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=192, metavar="PIXELS", help="(default: 192)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="turns that count (default: 10)")
    parser.add_argument("--startups", type=int, default=3, metavar="N", help="processes per contestant (default: 3)")
    for mode in ("--start", "--count", "--serve"):
        parser.add_argument(mode, metavar="CONTESTANT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start or args.count or args.serve:
        child(args)
        return
    has_pytorch = all(importlib.util.find_spec(package) for package in ("torch", "torchvision"))
    programs = [OURS, *([PYTORCH] if has_pytorch else []), KERAS]
    names = [f"{program}, {precision}" for program in programs for precision in PRECISIONS]
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    bench_floor(names[0], args)
    bench_start(names, args)
    bench_steps(names, args)


if __name__ == "__main__":
    main()
