"""Choose what Keras computes with, and with which settings, before anything else imports it."""

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence

BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")  # of Keras 3
TRAINING = ("tensorflow", "jax")  # those that training is held to by the tests
PREDICTING = ("openvino", "tensorflow", "jax", "torch")
# What Keras imports wherever it is installed, and predicting has no use for: together some 70 MB.
OPTIONAL_FOR_KERAS = ("matplotlib", "pandas", "sklearn")
# OpenVINO's usage statistics, sent over the network and written to the user's home; a service's user may have none.
TELEMETRY = "openvino_telemetry"


class _Lean(importlib.abc.MetaPathFinder):
    """Hide TensorFlow and telemetry from this process, and from Keras, while it is imported, what it can do without."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        keras = sys.modules.get("keras")
        keras_is_coming = keras is not None and not hasattr(keras, "__version__")  # the last but one name that it sets
        if fullname in ("tensorflow", TELEMETRY) or (keras_is_coming and fullname in OPTIONAL_FOR_KERAS):
            raise ModuleNotFoundError(f"{fullname} is left out of this process: Keras only predicts.", name=fullname)


class BackendError(ValueError):
    """What Keras is told to compute with cannot be used; the message says what can."""


def choose_inference_backend() -> None:
    """Let Keras run on OpenVINO where that is installed, else on TensorFlow; a user's own KERAS_BACKEND wins.

    Keras imports TensorFlow wherever it finds it, whatever its backend: seconds and hundreds of megabytes that
    predicting with OpenVINO has no use for. So it is hidden from this process then. Where Keras is there already, it
    stays as it is.

    Raises:
        BackendError: KERAS_BACKEND names what cannot predict or is not installed.
    """
    if "keras" in sys.modules:
        return
    usual = "tensorflow" if not _installed("openvino") and _installed("tensorflow") else "openvino"
    _choose(usual, PREDICTING, "predict")
    if os.environ["KERAS_BACKEND"] == "openvino" and not any(isinstance(one, _Lean) for one in sys.meta_path):
        sys.meta_path.insert(0, _Lean())


def choose_training_backend() -> None:
    """Let Keras train on TensorFlow, or what the user's own KERAS_BACKEND names.

    Raises:
        BackendError: KERAS_BACKEND names what cannot train or is not installed.
    """
    _choose("tensorflow", TRAINING, "train")


def _choose(usual: str, able: Sequence[str], purpose: str) -> None:
    """Set KERAS_BACKEND where it is not set, and check it."""
    name = os.environ.get("KERAS_BACKEND") or usual
    able_here = [one for one in able if _installed(one)]
    given = f"KERAS_BACKEND={name}" if os.environ.get("KERAS_BACKEND") else f"Keras' backend {name}"
    remedy = f"Set KERAS_BACKEND to {' or '.join(able)}; installed here: {', '.join(able_here) or 'none of them'}."
    if name not in able:
        known = f"is a backend that cannot {purpose} here" if name in BACKENDS else "is no backend of Keras"
        raise BackendError(f"{given} {known}. {remedy}")
    if name not in able_here:
        raise BackendError(f"{given} is not installed. {remedy}")
    os.environ["KERAS_BACKEND"] = name


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # hidden from this process
        return False


def load_keras() -> None:
    """Import Keras with the settings that all code here is written for, whatever the user's keras.json says.

    Raises:
        BackendError: it cannot be imported, or keras.json holds what Keras refuses.
    """
    try:
        import keras
    except (ImportError, ValueError, AttributeError, OSError) as error:
        folder = os.environ.get("KERAS_HOME", "~/.keras")
        raise BackendError(
            f"Keras cannot be loaded with KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')}: "
            f"{' '.join(str(error).split())[:300].removesuffix('.')}. Install it anew, or correct {folder}/keras.json."
        ) from error
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
