"""Choose what Keras computes with, before Keras is imported. For the scripts that only predict."""

import importlib.abc
import importlib.util
import os
import sys

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


def choose_inference_backend() -> None:
    """Let Keras run on OpenVINO where that is installed, else on TensorFlow; a user's own KERAS_BACKEND wins.

    Keras imports TensorFlow wherever it finds it, whatever its backend: seconds and hundreds of megabytes that
    predicting with OpenVINO has no use for. So it is hidden from this process then.
    """
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")
    if os.environ["KERAS_BACKEND"] == "openvino":
        sys.meta_path.insert(0, _Lean())
