"""The outline network at work: loaded, compiled, checked against itself, and asked for one radiograph at a time."""

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np

from cxr.anatomy.outline_file import CURE, SELF_CHECK_CELLS, load_outline_network
from cxr.anatomy.outline_network import STRUCTURES
from cxr.anatomy.outlines import Outlines, outlines_from
from cxr.imaging.radiograph import to_model_input
from cxr.network.model_info import ModelFileError, draw_self_check_picture
from cxr.system.process import export_prefix

SELF_CHECK_TOLERANCE = 1e-3  # relative, of means of logits; float32 engines differ by about 1e-6

Run = Callable[[np.ndarray], np.ndarray]  # float32 (1, size, size, 1) to logits (1, grid, grid, 3)


class OutlineModel:
    """Find lungs and heart on radiographs with the network of one file; safe to call from many threads.

    Attributes:
        info: the file's record.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Load, compile and check; takes about a second.

        Raises:
            ModelFileError: the file is missing, damaged or does not fit, or gives other answers here than where it was
                made.
        """
        network, self.info = load_outline_network(path)
        self._run = compile_outline_network(network)
        self._lock = threading.Lock()  # a pass takes milliseconds on all cores; side by side none would be faster
        found = self_check(self._run, self.info.input_size)
        error = np.abs(found - self.info.self_check).max() / max(1.0, np.abs(self.info.self_check).max())
        if not error <= SELF_CHECK_TOLERANCE:
            raise ModelFileError(
                f"{path}: self-check failed: the self-check picture's logits differ from the stored ones by "
                f"{error:.2g}, expected at most {SELF_CHECK_TOLERANCE:g}. {CURE}"
            )

    def outline(self, radiograph: np.ndarray) -> Outlines:
        """Outline right lung, left lung and heart of a radiograph, uint8 (height, width).

        Returns: the outlines on the grid of the network's input.
        """
        height, width = radiograph.shape
        return outlines_from(self.probabilities(radiograph), width / height)

    def probabilities(self, radiograph: np.ndarray) -> np.ndarray:
        """Return the network's probabilities, float32 (size, size, 3), of right lung, left lung and heart."""
        size = self.info.input_size
        model_input = to_model_input(radiograph, size)
        with self._lock:
            logits = self._run(model_input[np.newaxis].astype(np.float32))[0]
        return probabilities_from(logits, size)


def probabilities_from(logits: np.ndarray, size: int) -> np.ndarray:
    """Turn logits (grid, grid, 3) into probabilities, float32 (size, size, 3).

    Logits are smooth where probabilities are steep: between them, outlines do not follow the coarse grid's steps.
    """
    logits = cv2.resize(logits, (size, size), interpolation=cv2.INTER_LINEAR)
    return (1 / (1 + np.exp(-logits.clip(-30, 30)))).astype(np.float32)


def outline_model_at(path: Path, say: Callable[[str], None]) -> OutlineModel | None:
    """Load the outline model of a file for outputs that do without it; None where it is missing or, said, unusable."""
    if not path.exists():
        return None
    try:
        return OutlineModel(path)
    except ModelFileError as error:
        say(f"No outlines of lungs and heart: {error}")
        return None


def self_check(run: Run, size: int) -> np.ndarray:
    """Answer for the self-check picture: float64 (3 * SELF_CHECK_CELLS ** 2,), the form of OutlineInfo's."""
    logits = run(draw_self_check_picture(size)[np.newaxis].astype(np.float32))[0]
    cells = SELF_CHECK_CELLS
    side = logits.shape[0] // cells * cells
    parts = logits[:side, :side].astype(np.float64).reshape(cells, side // cells, cells, side // cells, len(STRUCTURES))
    return parts.mean(axis=(1, 3)).transpose(2, 0, 1).ravel()


def compile_outline_network(network: keras.Model) -> Run:
    """Compile a network for one radiograph at a time: by OpenVINO in float32 where Keras runs on it, else by Keras.

    Raises:
        ModelFileError: OpenVINO reads the network from a temporary file, and that cannot be written.
    """
    if keras.backend.backend() != "openvino":
        return lambda model_input: np.asarray(network.predict_on_batch(model_input))
    import openvino  # exists: Keras' openvino backend is built on it

    try:
        with tempfile.TemporaryDirectory(prefix=export_prefix()) as folder:
            file = Path(folder, "outlines.xml")
            network.export(str(file), format="openvino", verbose=False)
            graph = openvino.Core().read_model(file)
            graph.reshape([1, *network.input_shape[1:]])
            # Without the hint OpenVINO computes in bfloat16 wherever the processor has it.
            hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            request = openvino.Core().compile_model(graph, "CPU", hints).create_infer_request()
    except (OSError, RuntimeError) as error:  # OpenVINO's words for a full disk are of the second kind
        raise ModelFileError(
            f"The outline network could not be compiled: {' '.join(str(error).split())[:200]} Make room in the folder "
            "for temporary files, or name another one with the environment variable TMPDIR."
        ) from error
    return lambda model_input: request.infer({0: model_input})[0]
