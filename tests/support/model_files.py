"""Small model files, and ways to change them."""

import dataclasses
import json

import h5py
import numpy as np

from cxr.network import model_file
from cxr.network.input_check import (
    Source,
    fit_source,
)
from cxr.network.model_file import INFO_ATTRIBUTE
from cxr.network.model_info import (
    ModelInfo,
    SelfCheckPicture,
)

FINDINGS = ("Mass", "Pleural_Thickening")


SIZE = 32


RADIOGRAPHS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)


def make_info(**changes):
    rng = np.random.default_rng(1)
    rows = [(rng.normal(size=(n, 6)), rng.normal(size=(n, 64))) for n in (40, 20, 30, 10)]
    sources = (
        fit_source(*rows[:2], name="nih", description="radiographs", num_images=40, num_patients=31),
        fit_source(*rows[2:], name="phantom", num_images=30, num_patients=30),
        Source(name="", num_images=1, num_patients=1),
    )
    info = ModelInfo(
        findings=FINDINGS,
        image_size=SIZE,
        thresholds=(0.25, None),
        threshold_rule="Youden's J on the validation split",
        calibration={"method": "platt", "slopes": [1.0, 0.5], "biases": [0.0, -0.25]},
        feature_shape=(1, 1, 1024),
        weights_origin="none (random)",
        data_fingerprint="ab" * 32,
        split_sizes={"train": {"images": 4, "patients": 3}},
        test_metrics={"mean_auroc": 0.75, "auroc": {"Mass": 0.75, "Pleural_Thickening": None}},
        settings={"epochs": 3},
        test_sets={"nih": {"mean_auroc": 0.75}, "phantom": {"mean_auroc": None, "views": {}}},
        sources=sources,
        self_check=SelfCheckPicture(RADIOGRAPHS[0], np.array([0.25, 0.5], np.float32)),
    )
    return dataclasses.replace(info, **changes)


def reseal(path):
    """Store the digest that belongs to the file's present content, as somebody with bad intent would."""
    with h5py.File(path, "r+") as file:
        plain = json.loads(file.attrs[INFO_ATTRIBUTE])
        plain["digest"] = model_file.content_digest(file, max_bytes=2**62)
        file.attrs[INFO_ATTRIBUTE] = json.dumps(plain, sort_keys=True)


def change_layer(name, class_name=None, **changes):
    def change(file):
        config = json.loads(file.attrs["model_config"])
        layer = next(one for one in config["config"]["layers"] if one["config"]["name"] == name)
        layer["class_name"] = class_name or layer["class_name"]
        layer["config"].update(changes)
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)

    return change
