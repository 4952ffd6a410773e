"""Every benchmark runs to its end in its smallest form; what it measures is not looked at here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = {
    "bench_anatomy": (
        "--limit 4 --set sample test_data.csv images --hearts test_data.csv images sample_boxes.csv",
        "sample (false alarms)",
    ),
    "bench_data": ("--image-size 32 --batch-size 2 --count 4 --steps 2 --repeats 1", "on a GPU: "),
    "bench_inference": ("--rounds 1 --startups 1 --engines openvino-f32", "f32: probabilities and all heatmaps"),
    "bench_input_check": ("--limit 4", "%"),
    "bench_randomisation": ("--heads 1", "trained head"),
    "bench_site": ("--seconds 0.5 --rounds 1 --soak 4", "resident memory in MiB after so many more requests: 0: "),
    "bench_table": ("--count 2 --whole model", "the model alone over probabilities: clock "),
    "bench_training": ("--image-size 32 --batch-size 2 --repeats 1 --startups 1", "floor, the convolutions alone: "),
    "hostile_files": ("", "MB"),
    "sample_realism": ("--real images --limit 4", "4 real and 4 sample images"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_benchmark_runs_to_its_end(name):
    arguments, said = SMALLEST[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments.split()]
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_every_benchmark_has_a_smallest_form():
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")}
    assert programs == set(SMALLEST)
