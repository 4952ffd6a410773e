"""Inference side by side: the raw OpenVINO graph, this project, Keras, TensorFlow, and two Grad-CAM libraries.

    python -m benchmarks.bench_inference                  # all that is installed; a few minutes
    python -m benchmarks.bench_inference --rounds 100 --engines openvino-f32,openvino-bf16

Every engine runs in a process of its own, for Keras has one backend per process and thread pools disturb each other.
The processes take turns in an order drawn anew each round, one untimed and three timed calls per turn, so that whatever
else the machine does falls on all of them alike: compare the ratios, which are medians over rounds of one turn's median
over the raw graph's in the same round. Network and input are the shipped model's, batch 1; where a row says "random
weights" the library cannot read the model, and a DenseNet121 of the same input size stands in.

Start-up runs first, in fresh processes: time from the start of Python to the first answer, and the largest resident
set.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODEL_PATH = ROOT / "model" / "chest_xray_densenet_model.h5"
RADIOGRAPH = ROOT / "images" / "00000011_001.png"
CALLS_PER_TURN = 3
SLOW_SECONDS = 1.0  # a contender that takes longer than this gets one call per turn
SLOW_ROUNDS = 5  # and takes part in this many rounds
RAW = "raw OpenVINO graph, f32: probabilities only"
RAW_BF16 = "raw OpenVINO graph, bf16: probabilities only"

Contenders = dict[str, Callable[[], object]]

# Runs in a fresh process. The time is taken by the parent; statm is Linux's.
STARTUP_SCRIPT = """
import os, resource, sys
os.environ["KERAS_BACKEND"] = sys.argv[1]
from cxr.inference.backend import choose_inference_backend
choose_inference_backend()  # as gradcam.py and app.py do
from cxr.imaging.radiograph import read_radiograph
from cxr.inference.predictor import Predictor
from gradcam import explain
answer = explain(Predictor(sys.argv[2]), read_radiograph(sys.argv[3]))
print("answer", "tensorflow" in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
"""


def model_input() -> np.ndarray:
    """Return the radiograph as uint8 (1, size, size, 1), for the shipped model."""
    from cxr.imaging.radiograph import read_radiograph, to_model_input
    from cxr.network.model_file import read_model_info

    return to_model_input(read_radiograph(RADIOGRAPH), read_model_info(MODEL_PATH).image_size)[np.newaxis]


def openvino_contenders(precision: str) -> Contenders:
    """The floor, and what this project does on top of it."""
    import openvino

    from cxr.imaging.radiograph import read_radiograph
    from cxr.inference.predictor import Predictor
    from cxr.network.model_file import load_model
    from gradcam import explain, heatmaps

    network, info = load_model(MODEL_PATH)
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        network.export(f"{folder}/raw.xml", format="openvino", verbose=False)
        graph = core.read_model(f"{folder}/raw.xml")
        graph.reshape([1, info.image_size, info.image_size, 1])
        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(graph, "CPU", hints).create_infer_request()
    pixels, radiograph = model_input(), read_radiograph(RADIOGRAPH)
    floats = pixels.astype(np.float32)
    predictor = Predictor(MODEL_PATH, precision=precision)

    def answer() -> np.ndarray:
        features = predictor.predict(pixels).features
        return heatmaps(features, predictor.head_kernel)

    return {
        (RAW if precision == "f32" else RAW_BF16): lambda: request.infer({0: floats}, share_inputs=True),
        f"this project, {precision}: probabilities and all heatmaps": answer,
        f"this project, {precision}: the same from the radiograph, with resize and input check": lambda: explain(
            predictor, radiograph
        ),
    }


def tensorflow_contenders() -> Contenders:
    """Keras and TensorFlow, in the ways that are usual, and tf-keras-vis."""
    import keras
    import tensorflow as tf

    from cxr.network.model_file import load_model

    network, info = load_model(MODEL_PATH)
    floats = model_input().astype(np.float32)
    num_findings = len(info.findings)
    both = keras.Model(network.input, [network.get_layer("relu").output, network.get_layer("logits").output])
    compiled = tf.function(both, input_signature=[tf.TensorSpec([1, *floats.shape[1:]], tf.float32)])
    kernel = np.asarray(network.get_layer("logits").get_weights()[0])

    def closed_form() -> np.ndarray:
        features, _ = compiled(floats)
        return np.maximum(features.numpy() @ kernel, 0)

    def autodiff() -> list[np.ndarray]:
        """The keras.io example, once per finding."""
        maps = []
        for finding in range(num_findings):
            with tf.GradientTape() as tape:
                features, logits = both(floats)
                channel = logits[:, finding]
            weights = tf.reduce_mean(tape.gradient(channel, features), axis=(0, 1, 2))
            maps.append(tf.maximum(features[0] @ weights[..., tf.newaxis], 0).numpy())
        return maps

    contenders: Contenders = {
        "Keras predict: probabilities only": lambda: network.predict(floats, verbose=0),
        "tf.function: logits and all heatmaps in closed form": closed_form,
        f"keras.io's Grad-CAM by gradient tape: {num_findings} heatmaps": autodiff,
    }
    if importlib.util.find_spec("tf_keras_vis"):
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.utils.scores import CategoricalScore

        explainer = Gradcam(keras.Model(network.input, network.get_layer("logits").output), clone=False)
        contenders[f"tf-keras-vis: {num_findings} heatmaps"] = lambda: [
            explainer(CategoricalScore(finding), floats, penultimate_layer="relu") for finding in range(num_findings)
        ]
    return contenders


def torch_contenders() -> Contenders:
    """pytorch-grad-cam, on torchvision's DenseNet121."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "pytorch_grad_cam")):
        return {}
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchvision.models import densenet121

    from cxr.network.model_file import read_model_info

    num_findings = len(read_model_info(MODEL_PATH).findings)
    network = densenet121(num_classes=num_findings).eval()
    pixels = torch.from_numpy(model_input().astype(np.float32) / 255).permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
    explainer = GradCAM(model=network, target_layers=[network.features.norm5])

    def forward() -> object:
        with torch.inference_mode():
            return network(pixels)

    return {
        "PyTorch, random weights: logits only": forward,
        f"pytorch-grad-cam, random weights: {num_findings} heatmaps": lambda: [
            explainer(input_tensor=pixels, targets=[ClassifierOutputTarget(finding)]) for finding in range(num_findings)
        ],
    }


ENGINES: dict[str, tuple[str, Callable[[], Contenders]]] = {
    "openvino-f32": ("openvino", lambda: openvino_contenders("f32")),
    "openvino-bf16": ("openvino", lambda: openvino_contenders("bf16")),
    "tensorflow": ("tensorflow", tensorflow_contenders),
    "torch": ("openvino", torch_contenders),
}


def serve(engine: str, connection: Connection) -> None:
    """In a process of its own: send the contenders' names, then time one of them whenever it is asked for."""
    backend, make = ENGINES[engine]
    os.environ["KERAS_BACKEND"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = backend, "3"
    contenders = make()
    first_seconds = {name: _timed(call) for name, call in contenders.items()}
    second_seconds = {name: _timed(call) for name, call in contenders.items()}  # the first traces and compiles
    connection.send({name: min(first_seconds[name], second_seconds[name]) for name in contenders})
    while (name := connection.recv()) is not None:
        num_calls = 1 if second_seconds[name] > SLOW_SECONDS else CALLS_PER_TURN
        if num_calls > 1:
            contenders[name]()
        connection.send([_timed(contenders[name]) for _ in range(num_calls)])


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_startup(repeats: int) -> list[dict[str, object]]:
    """Time fresh processes, in turns, from their start to the first answer."""
    backends = [name for name in ("openvino", "tensorflow") if importlib.util.find_spec(name)]
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    said: dict[str, list[str]] = {}
    for _ in range(repeats):
        for backend in backends:
            command = [sys.executable, "-c", STARTUP_SCRIPT, backend, str(MODEL_PATH), str(RADIOGRAPH)]
            start = time.perf_counter()
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            )
            seconds[backend].append(time.perf_counter() - start)
            said[backend] = done.stdout.split()
    return [
        {
            "backend": backend,
            "seconds": statistics.median(seconds[backend]),
            "fastest": min(seconds[backend]),
            "tensorflow_imported": said[backend][1] == "True",
            "peak_rss_mib": float(said[backend][2]),
        }
        for backend in backends
    ]


def take_turns(engines: list[str], rounds: int) -> list[dict[str, float]]:
    """Return, for each round, each contender's median seconds per call in its turn."""
    context = multiprocessing.get_context("spawn")
    owners, estimates, processes, table = {}, {}, [], []
    for engine in engines:
        connection, other_end = context.Pipe()
        process = context.Process(target=serve, args=(engine, other_end), daemon=True)
        process.start()
        other_end.close()
        processes.append((process, connection))
        try:
            contenders = connection.recv()
        except EOFError:
            print(f"{engine}: could not be set up here, left out (its own message is above)", file=sys.stderr)
            continue
        owners |= dict.fromkeys(contenders, connection)
        estimates |= contenders
    for number in range(rounds):
        names = [name for name in owners if number < SLOW_ROUNDS or estimates[name] <= SLOW_SECONDS]
        names = np.random.default_rng(number).permutation(names).tolist()
        row = {}
        for name in names:
            owners[name].send(name)
            row[name] = statistics.median(owners[name].recv())
        table.append(row)
    for process, connection in processes:
        if process.is_alive():
            connection.send(None)
        process.join(timeout=30)
    return table


def summarise(table: list[dict[str, float]]) -> list[dict[str, float | str | None]]:
    """Turn rounds into a row per contender, the fastest first: median and quartiles of time, medians of the ratios."""
    rows = []
    for name in table[0]:
        taken = [row[name] for row in table if name in row]
        ratio = {
            raw: statistics.median(row[name] / row[raw] for row in table if name in row) if raw in table[0] else None
            for raw in (RAW, RAW_BF16)
        }
        low, high = np.percentile(taken, [25, 75])
        rows.append(
            {
                "name": name,
                "rounds": len(taken),
                "median_ms": 1000 * statistics.median(taken),
                "low_ms": 1000 * low,
                "high_ms": 1000 * high,
                "ratio_f32": ratio[RAW],
                "ratio_bf16": ratio[RAW_BF16],
            }
        )
    return sorted(rows, key=lambda row: row["median_ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contender (default: 30)")
    parser.add_argument("--startups", type=int, default=3, help="fresh processes per backend (default: 3)")
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="A,B", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()
    engines = args.engines.split(",")
    if not set(engines) <= set(ENGINES):
        parser.error(f"argument --engines: expected some of {', '.join(ENGINES)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the start")

    startup = measure_startup(args.startups) if args.startups else []
    for row in startup:
        print(
            f"start-up to first answer, {row['backend']}: median {row['seconds']:.1f} s, fastest {row['fastest']:.1f} "
            f"s, peak {row['peak_rss_mib']:.0f} MiB, TensorFlow imported: {row['tensorflow_imported']}"
        )
    rows = summarise(take_turns(engines, args.rounds))
    print(f"\n{'per image':<78}{'median':>10}{'quartiles, ms':>18}{'/ raw f32':>11}{'/ raw bf16':>11}{'rounds':>7}")
    for row in rows:
        ratios = "".join(
            f"{'' if row[key] is None else format(row[key], '.2f'):>11}" for key in ("ratio_f32", "ratio_bf16")
        )
        spread = f"{row['low_ms']:.1f} to {row['high_ms']:.1f}"
        print(f"{row['name']:<78}{row['median_ms']:>7.1f} ms{spread:>18}{ratios}{row['rounds']:>7}")
    if args.json:
        args.json.write_text(json.dumps({"startup": startup, "per_image": rows}, indent=1))


if __name__ == "__main__":
    main()
