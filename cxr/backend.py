"""Choose what Keras computes with, before Keras is imported. For the scripts that only predict."""

import importlib.abc
import importlib.util
import os
import sys


class _WithoutTensorFlow(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "tensorflow":
            raise ModuleNotFoundError("TensorFlow is left out of this process: Keras runs on OpenVINO.", name=fullname)


def choose_inference_backend() -> None:
    """Let Keras run on OpenVINO where that is installed, else on TensorFlow; a user's own KERAS_BACKEND wins.

    Keras imports TensorFlow wherever it finds it, whatever its backend: seconds and hundreds of megabytes that
    predicting with OpenVINO has no use for. So it is hidden from this process then.
    """
    os.environ.setdefault("KERAS_BACKEND", "openvino" if importlib.util.find_spec("openvino") else "tensorflow")
    if os.environ["KERAS_BACKEND"] == "openvino":
        sys.meta_path.insert(0, _WithoutTensorFlow())
