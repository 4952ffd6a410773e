"""Write a model file in another runtime's format, Grad-CAM included, and compare the two before saying that it is done.

    python -m tools.export_model MODEL.h5 --format onnx                               # needs onnx, tf2onnx, onnxruntime
    python -m tools.export_model MODEL.h5 --format openvino --out exported/model.xml  # needs openvino
    python -m tools.export_model MODEL.h5 --format tflite                             # needs tensorflow
    python -m tools.export_model MODEL.h5 --format saved_model --image-dir xrays      # needs tensorflow

The exported network takes grey values of 0 to 255, float32 (n, size, size, 1), and gives probabilities, logits and
heatmaps. Findings, thresholds, calibration and how a radiograph becomes its input lie beside it as JSON. It is loaded
by its own runtime and compared on radiographs; only then it takes its place.
Exit codes: 0 done, 2 bad arguments, a model or package that cannot be used, or answers that differ, 3 files that cannot
be read or written.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.inference.backend import BackendError, choose_inference_backend, choose_training_backend, load_keras
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.system.atomic_files import TEMP_PREFIX, replacing
from cxr.system.terminal import fail, say

if TYPE_CHECKING:
    import keras

PROJECT_DIR = Path(__file__).resolve().parent.parent
NUM_RADIOGRAPHS = 8
TOLERANCE = 1e-4  # of an output's largest value; float32 engines differ by about 1e-6
OUTPUTS = ("probabilities", "logits", "heatmaps")
# Format -> ending, what Keras calls it, packages that write and run it.
FORMATS = {
    "onnx": (".onnx", "onnx", ("tensorflow", "onnx", "tf2onnx", "onnxruntime")),
    "openvino": (".xml", "openvino", ("openvino",)),
    "tflite": (".tflite", "litert", ("tensorflow",)),
    "saved_model": ("_saved_model", "tf_saved_model", ("tensorflow",)),
}

Run = Callable[[np.ndarray], list[np.ndarray]]  # float32 (1, size, size, 1) to OUTPUTS in order


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file of this project, .h5")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, metavar="PATH", help="(default: MODEL's name with the format's ending)")
    parser.add_argument(
        "--image-dir", type=Path, default=PROJECT_DIR / "images", metavar="DIR",
        help=f"radiographs to compare on, the first {NUM_RADIOGRAPHS} by name (default: images beside main_train.py)",
    )  # fmt: skip
    return parser.parse_args(argv)


def with_heatmaps(model: "keras.Model") -> "keras.Model":
    """Return the network with probabilities, logits and Grad-CAM's heatmaps (n, h, w, findings) as its outputs.

    The head is pooling and one dense layer, so the heatmaps are a convolution of one pixel and a ReLU
    (cxr/heatmaps/gradcam.py).
    """
    import keras

    features, (kernel, _) = model.get_layer("relu").output, model.get_layer("logits").get_weights()
    height, width = features.shape[1:3]
    convolution = keras.layers.Conv2D(kernel.shape[1], 1, use_bias=False, activation="relu", name="heatmaps")
    heatmaps = convolution(features)
    convolution.set_weights([kernel[np.newaxis, np.newaxis] / (height * width)])
    outputs = [model.get_layer("probabilities").output, model.get_layer("logits").output, heatmaps]
    return keras.Model(model.input, outputs)


def without_constants(network: "keras.Model") -> "keras.Model":
    """Return the same network with its normalisation written as a convolution of one pixel.

    tf2onnx takes the constants of Keras' normalisation layer for inputs of the network.
    """
    import keras

    def clone(layer: "keras.Layer") -> "keras.Layer":
        if isinstance(layer, keras.layers.Normalization):
            return keras.layers.DepthwiseConv2D(1, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    cloned = keras.models.clone_model(network, clone_function=clone)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance = (np.asarray(one).reshape(-1) for one in (layer.mean, layer.variance))
            scale = 1 / np.sqrt(variance)
            cloned.get_layer(layer.name).set_weights([scale.reshape(1, 1, -1, 1), -mean * scale])
        elif layer.weights:
            cloned.get_layer(layer.name).set_weights(layer.get_weights())
    return cloned


def load_exported(path: Path, format_name: str, image_size: int) -> tuple[Run, list[str]]:
    """Load an exported network with its own runtime; return how to run it, and what the runtime calls the outputs."""
    if format_name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda picture: session.run(None, {name: picture}), [one.name for one in session.get_outputs()]
    if format_name == "openvino":
        import openvino

        core = openvino.Core()
        graph = core.read_model(path)
        graph.reshape([1, image_size, image_size, 1])
        # Without the hint it computes in bfloat16 wherever the processor has it.
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        names = [min(one.get_names(), default=str(place)) for place, one in enumerate(compiled.outputs)]
        return lambda picture: [np.array(one) for one in request.infer({0: picture}).values()], names
    import tensorflow as tf

    if format_name == "tflite":
        signature = tf.lite.Interpreter(str(path)).get_signature_runner()
        places = signature.get_output_details()
        (name,) = signature.get_input_details()
        names = sorted(places)
        return lambda picture: [signature(**{name: picture})[one] for one in names], names
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (name,), names = serve.structured_input_signature[1], sorted(serve.structured_outputs)

    def run(picture: np.ndarray) -> list[np.ndarray]:
        answer = serve(**{name: tf.constant(picture)})
        return [answer[one].numpy() for one in names]

    run.loaded = loaded  # it would be collected, and its variables with it
    return run, names


def describe(info: ModelInfo, args: argparse.Namespace, names: list[str], grid: tuple[int, int], found: dict) -> dict:
    """Collect what a program needs to know of the exported network, in JSON's types."""
    size, count = info.image_size, len(info.findings)
    shapes = {"heatmaps": ["n", *grid, count]}
    return {
        "format": args.format,
        "model": {"file": args.model.name, "digest": info.digest, "created": info.created},
        "findings": list(info.findings),
        "threshold": info.threshold,
        "chosen_thresholds": list(info.thresholds),
        "threshold_rule": info.threshold_rule,
        "calibration": info.calibration,
        "input": {
            "shape": ["n", size, size, 1],
            "type": "float32",
            "preprocessing": f"grey values of 0 to 255, bone bright; the whole radiograph resized to {size} x {size} "
            "by averaging over areas, without crop; every further normalisation is inside of the network",
        },
        "outputs": [
            {"name": name, "runtime_name": own, "shape": shapes.get(name, ["n", count])}
            for name, own in zip(OUTPUTS, names, strict=True)
        ],
        "compared": found,
        "licence": info.licence,
        "disclaimer": info.disclaimer,
    }


def radiographs(folder: Path, image_size: int) -> np.ndarray:
    """Read the first radiographs of a folder as model inputs, float32 (n, size, size, 1).

    Raises:
        FileNotFoundError: there is none.
    """
    from cxr.imaging.radiograph import read_radiograph, to_model_input

    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".dcm")]
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no PNG, JPEG or DICOM files. Give another folder to --image-dir.")
    pictures = [to_model_input(read_radiograph(path), image_size) for path in paths[:NUM_RADIOGRAPHS]]
    return np.stack(pictures).astype(np.float32)


def compare(reference: Run, exported: Run, pictures: np.ndarray) -> dict[str, float]:
    """Return the largest difference of each output, as a share of its largest value.

    Raises:
        ModelFileError: it is above the tolerance.
    """
    pairs = [(reference(one[np.newaxis]), exported(one[np.newaxis])) for one in pictures]
    found = {}
    for place, name in enumerate(OUTPUTS):
        expected, received = (np.concatenate([one[side][place] for one in pairs]) for side in (0, 1))
        if expected.shape != received.shape:
            raise ModelFileError(f"The exported {name} have the shape {received.shape}, expected {expected.shape}.")
        found[name] = float(np.abs(expected - received).max() / max(np.abs(expected).max(), 1e-9))
        if not found[name] <= TOLERANCE:
            raise ModelFileError(
                f"The exported {name} differ by {found[name]:.2g} of the largest, expected at most {TOLERANCE:g}. "
                "Nothing was written; another version of the exporting packages may do better."
            )
    return found


def export(args: argparse.Namespace) -> Path:
    """Export, load again, compare, and put the files in place; return the path of the exported network."""
    ending, keras_name, packages = FORMATS[args.format]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelFileError(f"--format {args.format} needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    out = args.out or args.model.with_name(args.model.stem + ending)
    if out.suffix != ending and args.format != "saved_model":
        raise ModelFileError(f"{out}: expected a name that ends in {ending} for the format {args.format}.")
    if args.format == "saved_model" and out.exists():
        raise ModelFileError(f"{out}: is there already. Remove the folder, or give another --out.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", module="tensorflow|keras|tf2onnx")  # of the exporters, on what they will change
    (choose_training_backend if "tensorflow" in packages else choose_inference_backend)()
    load_keras()
    from cxr.inference.predictor import compile_network
    from cxr.network.model_file import load_model

    model, info = load_model(args.model)
    pictures = radiographs(args.image_dir, info.image_size)
    network = with_heatmaps(model)
    (reference, *_), _ = compile_network(network)
    if args.format == "onnx":
        network = without_constants(network)
        network(pictures[:1])  # its exporter wants a network that was called
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=out.parent) as folder:
        temp = Path(folder, out.name)
        network.export(str(temp), format=keras_name, verbose=False)
        exported, names = load_exported(temp, args.format, info.image_size)
        found = compare(reference, exported, pictures)
        grid = tuple(network.outputs[2].shape[1:3])
        text = json.dumps(describe(info, args, names, grid, found), indent=2, allow_nan=False)
        del exported  # it may hold the file open
        if temp.is_dir():
            shutil.move(temp, out)
        else:
            for part in sorted(Path(folder).glob(f"{temp.stem}.*")):  # OpenVINO's weights are a file of their own
                with replacing(out.with_name(part.name)) as place:
                    shutil.copyfile(part, place)
    with replacing(out.with_name(f"{out.name}.json")) as place:
        place.write_text(text + "\n", encoding="utf-8")
    worst = max(found.values())
    say(f"{out}: {args.format}, compared on {len(pictures)} radiographs, largest difference {worst:.1e} of an output.")
    say(f"{out.name}.json beside it: findings, thresholds and how a radiograph becomes its input.")
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    try:
        export(args)
    except (BackendError, ModelFileError) as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
