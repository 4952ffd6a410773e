"""A loaded model, compiled for inference and checked against itself.

Owns the engine: OpenVINO where Keras runs on its openvino backend, Keras itself on every other. What the answers mean
is said by ModelInfo; the script that is the entry point chooses Keras' backend.
"""

import gc
import importlib.util
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from cxr.inference.backend import BackendError
from cxr.inference.prediction import Prediction, calibrated_probabilities
from cxr.network.model_file import load_model
from cxr.network.model_info import ModelFileError
from cxr.system.process import export_prefix

if TYPE_CHECKING:
    import openvino

MAX_SIDE_BY_SIDE = 4  # forward passes; each needs memory of its own
SELF_CHECK_TOLERANCE = 1e-3  # of a probability; float32 engines differ by about 1e-6, bfloat16 by about 5e-3
SELF_CHECK_TOLERANCE_BF16 = 0.03  # of a probability
HEAD_TOLERANCE = 1e-3  # relative; pooling 49 cells and summing 1024 products in float32 stays below 1e-5
HEAD_TOLERANCE_BF16 = 0.1  # relative

logger = logging.getLogger(__name__)

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]  # features (1, h, w, c), logits, probabilities (1, findings)
RunOne = Callable[[np.ndarray], Outputs]  # for one caller at a time: TensorFlow promises nothing about threads


class Predictor:
    """Answer for model inputs with the model of one .h5; safe to call from many threads.

    Attributes:
        info: ModelInfo of the file.
        engine: what computes, in words, such as "OpenVINO f32".
        head_kernel: float32 (channels, findings), the weights between pooled features and logits.
    """

    def __init__(self, path: str | os.PathLike, *, precision: str = "f32", side_by_side: bool = False) -> None:
        """Load, compile and check; takes seconds.

        Args:
            precision: "f32", or "bf16" where OpenVINO and the processor have it.
            side_by_side: compile for calls that overlap too, a few cores each: on two cores a fifth more answers per
                second, for 0.8 s and 140 MB. OpenVINO only; without it calls wait for each other.

        Raises:
            ModelFileError: the file is missing, damaged or does not fit; the head is not pooling and one dense layer;
                the self-check picture does not give the stored probabilities; `precision` cannot be had.
        """
        model, self.info = load_model(path)
        self.head_kernel, bias = _head_weights(model, path)
        network = with_named_outputs(model)
        del model
        runs, self.engine = compile_network(network, precision, side_by_side=side_by_side)
        del network
        for run_one in runs:
            self._pool = _RequestPool([run_one])
            self._check_itself(path, exact=precision == "f32", bias=bias)
        self._pool = _RequestPool(runs)

    def predict(self, model_inputs: np.ndarray) -> Prediction:
        """Answer for one or several model inputs, one forward pass each.

        An image's answer does not depend on the others in the call, nor on other threads.

        Args:
            model_inputs: uint8 (n, size, size, 1).

        Raises:
            ValueError: another shape or type.
        """
        size = self.info.image_size
        if model_inputs.dtype != np.uint8 or model_inputs.ndim != 4 or model_inputs.shape[1:] != (size, size, 1):
            received = f"{model_inputs.dtype} {model_inputs.shape}"
            raise ValueError(f"Expected model inputs uint8 (n, {size}, {size}, 1), received {received}.")
        if len(model_inputs) == 0:
            raise ValueError("Expected at least one model input, received none.")
        # One at a time: larger batches do not pay on a CPU, and an answer then depends on nothing but its own picture.
        answers = []
        for one in model_inputs:
            with self._pool.request() as run_one:
                answers.append(run_one(one[np.newaxis].astype(np.float32)))
        features, logits, probabilities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return Prediction(probabilities, logits, features, calibrated_probabilities(self.info, logits))

    def _check_itself(self, path: str | os.PathLike, *, exact: bool, bias: np.ndarray) -> None:
        """Hold this machine's answer for a known radiograph against the stored one, and the head against its formula.

        The second check proves that logit = mean(features) @ kernel + bias, on which the closed form of Grad-CAM rests.
        """
        self_check = self.info.self_check
        if self_check is None:
            raise ModelFileError(
                f"{path}: holds no self-check picture, so the model cannot be checked on this machine. "
                "Train again with main_train.py."
            )
        try:
            probabilities, logits, features, _ = self.predict(self_check.model_input[np.newaxis])
        except ValueError as error:
            raise ModelFileError(f"{path}: the self-check picture does not fit the network. {error}") from None
        pooled = features.mean(axis=(1, 2), dtype=np.float64)  # (1, channels)
        head_error = np.abs(pooled @ self.head_kernel + bias - logits).max() / max(1.0, np.abs(logits).max())
        if not head_error <= (HEAD_TOLERANCE if exact else HEAD_TOLERANCE_BF16):
            raise ModelFileError(
                f"{path}: expected a head of global average pooling and one dense layer, which Grad-CAM's closed form "
                f"needs; the logits differ from that by {head_error:.2g}. Build the network with cxr.network.densenet."
            )
        error = np.abs(probabilities[0] - self_check.probabilities).max()
        tolerance = SELF_CHECK_TOLERANCE if exact else SELF_CHECK_TOLERANCE_BF16
        if not error <= tolerance:
            raise ModelFileError(
                f"{path}: self-check failed with {self.engine}: the self-check picture's probabilities differ from the "
                f"stored ones by {error:.2g}, expected at most {tolerance:g}. Train again with main_train.py, or set "
                "KERAS_BACKEND=tensorflow to try another engine."
            )


class _RequestPool:
    """Pool of inference requests, each for one caller at a time: a lone caller gets all cores, overlapping ones share.

    A caller that is alone gets the first way, which has all cores. Callers that overlap share the others, where there
    are any: passes that have all cores each would wait for one another's threads, and on a busy machine OpenVINO keeps
    some 50 kB of each such pass for good.
    """

    def __init__(self, runs: Sequence[RunOne]) -> None:
        self._lone, shared = (None, runs) if len(runs) == 1 else (runs[0], runs[1:])
        self._shared: queue.SimpleQueue[RunOne] = queue.SimpleQueue()
        for run_one in shared:
            self._shared.put(run_one)
        self._lock, self._num_callers = threading.Lock(), 0

    @contextmanager
    def request(self) -> Iterator[RunOne]:
        with self._lock:
            alone = self._num_callers == 0 and self._lone is not None
            self._num_callers += 1
        run_one = self._lone if alone else self._shared.get()
        try:
            yield run_one
        finally:
            if not alone:
                self._shared.put(run_one)
            with self._lock:
                self._num_callers -= 1


def _head_weights(model: keras.Model, path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (channels, findings) and bias (findings,) of the dense layer that makes the logits."""
    head, features = model.get_layer("logits"), model.get_layer("relu").output
    expected = (features.shape[-1], model.output_shape[-1])
    weights = [np.asarray(weight) for weight in head.get_weights()]
    if len(features.shape) != 4 or len(weights) != 2 or weights[0].shape != expected:
        raise ModelFileError(
            f"{path}: expected a head of global average pooling and one dense layer with a kernel of {expected} and a "
            f"bias, found layer `relu` {features.shape} and layer `logits` with weights "
            f"{[weight.shape for weight in weights]}. Build the network with cxr.network.densenet."
        )
    return weights[0], weights[1]


def with_named_outputs(model: keras.Model) -> keras.Model:
    """Return the same network with features, logits and probabilities as its outputs."""
    return keras.Model(model.input, [model.get_layer(name).output for name in ("relu", "logits", "probabilities")])


def compile_network(
    network: keras.Model, precision: str = "f32", *, side_by_side: bool = False
) -> tuple[list[RunOne], str]:
    """Compile a network for one radiograph at a time.

    Keras' own predict on its openvino backend computes in bfloat16 wherever the processor has it; this does not.

    Args:
        network: of `with_named_outputs`.
    Returns: the ways to run it, and what computes, in words.
    Raises:
        ModelFileError: `precision` cannot be had.
        BackendError: OpenVINO reads the network from a temporary file, and that cannot be written.
    """
    if keras.backend.backend() == "openvino":
        image_size = network.input_shape[1]
        with _temporary_folder() as folder:
            file = Path(folder, "model.xml")
            try:
                network.export(str(file), format="openvino", verbose=False)
            except (OSError, RuntimeError) as error:  # OpenVINO's words for a full disk are of the second kind
                raise _temporary_folder_error(error) from error
            del network
            gc.collect()  # its layers refer to each other; the compiler needs their memory
            return _compile_openvino(file, image_size, precision, side_by_side=side_by_side), f"OpenVINO {precision}"
    if importlib.util.find_spec("openvino") is None:
        logger.warning("OpenVINO is not installed; predicting with Keras, about twice as slow.")
    if precision != "f32":
        raise ModelFileError(f"Precision {precision} needs OpenVINO. Install it with pip install openvino.")
    return [_run_keras(network)], f"Keras {keras.backend.backend()} f32"


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix=export_prefix())
    except OSError as error:
        raise _temporary_folder_error(error) from error


def _temporary_folder_error(error: Exception) -> BackendError:
    reason = getattr(error, "strerror", None) or "no room, or no permission"
    return BackendError(
        f"The folder for temporary files cannot take the network: {reason}. Make room there, or name another folder "
        "with the environment variable TMPDIR."
    )


def _compile_openvino(file: Path, image_size: int, precision: str, *, side_by_side: bool) -> list[RunOne]:
    """Compile an exported network for one radiograph at a time, with the precision asked for.

    Without the hint OpenVINO computes in bfloat16 wherever the processor has it.
    Returns: the way to run with all cores; behind it, if wanted and of use, those to run side by side.
    """
    import openvino  # exists: Keras' openvino backend is built on it

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelFileError("This processor has no bfloat16 arithmetic. Use precision f32.")
    graph = core.read_model(file)
    graph.reshape([1, image_size, image_size, 1])
    hints = {"INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(graph, "CPU", hints | {"PERFORMANCE_HINT": "LATENCY"})
    runs = [_run_openvino(compiled.create_infer_request())]
    if side_by_side:
        hints |= {"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": str(MAX_SIDE_BY_SIDE)}
        compiled = core.compile_model(graph, "CPU", hints)
        num_requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        if num_requests > 1:  # one: there is a single core
            runs += [_run_openvino(compiled.create_infer_request()) for _ in range(num_requests)]
    return runs


def _run_openvino(request: "openvino.InferRequest") -> RunOne:
    def run_one(model_input: np.ndarray) -> Outputs:
        results = request.infer({0: model_input})  # copies: the next call overwrites the request's own buffers
        return results[0], results[1], results[2]

    return run_one


def _run_keras(network: keras.Model) -> RunOne:
    """Predict with Keras' own backend."""

    def run_one(model_input: np.ndarray) -> Outputs:
        features, logits, probabilities = network.predict_on_batch(model_input)
        return np.asarray(features), np.asarray(logits), np.asarray(probabilities)

    return run_one
