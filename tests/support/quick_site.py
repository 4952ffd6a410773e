"""The whole site around a stand-in for the model, so that a test of the server starts in a second and needs no Keras.

    python tests/support/quick_site.py [--delay SECONDS] [--read-seconds SECONDS] [--port N] [--host ADDRESS]

The stand-in's probabilities depend on the picture alone, and can be worked out with `expected_probabilities`.
"""

import argparse
import functools
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cxr.system.process import hold_standard_descriptors

if __name__ == "__main__":
    hold_standard_descriptors()

import app as site
import cxr.site.server
from cxr.decoding.pool import Decoder
from cxr.imaging.radiograph import to_model_input
from cxr.inference.prediction import Prediction, calibrated_probabilities
from cxr.network.model_info import ModelInfo
from cxr.site import connection
from cxr.site.limits import LOCAL_HOSTS
from cxr.site.middleware import set_up_logging
from cxr.site.model_slot import ModelSlot
from cxr.system.process import keep_freed_memory_small

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
SIZE = 64
CALIBRATION = {"method": "platt", "slopes": [0.5] * 14, "biases": [-1.0] * 14}


class StandIn:
    """What the site asks of a predictor. Features: the picture in 2 x 2 cells, 14 channels of it; kernel: identity."""

    engine = "a stand-in"
    head_kernel = np.eye(14, dtype=np.float32)
    info = ModelInfo(
        FINDINGS, SIZE, thresholds=tuple(0.1 + 0.05 * k for k in range(14)), calibration=CALIBRATION, digest="0123" * 16
    )

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def predict(self, model_inputs):
        time.sleep(self.delay)
        cells = model_inputs[..., 0].reshape(-1, 2, SIZE // 2, 2, SIZE // 2).mean(axis=(2, 4)) / 255  # (n, 2, 2)
        features = (cells[..., np.newaxis] - np.arange(14) / 14).astype(np.float32)  # (n, 2, 2, 14)
        logits = features.mean(axis=(1, 2))
        return Prediction(1 / (1 + np.exp(-logits)), logits, features, calibrated_probabilities(self.info, logits))


def expected_probabilities(radiograph: np.ndarray) -> np.ndarray:
    """Work the stand-in's answer out by another way: the mean of the whole model input."""
    mean = to_model_input(radiograph, SIZE).mean() / 255
    return 1 / (1 + np.exp(-(mean - np.arange(14) / 14)))


def ready_slot(delay: float = 0.0) -> ModelSlot:
    slot = ModelSlot(__file__, load=lambda path, precision: StandIn(delay))
    slot.load()
    return slot


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--read-seconds", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--url-prefix", default="")
    parser.add_argument("--behind-proxy", type=int, default=0)
    parser.add_argument("--trusted-host", action="append", default=[])
    parser.add_argument("--allow-origin", action="append", default=[])
    args = parser.parse_args()
    connection.GRACE_SECONDS = args.read_seconds
    set_up_logging()
    keep_freed_memory_small()
    listener = socket.create_server((args.host, args.port))
    decoder = Decoder()
    application = site.create_app(
        ready_slot(args.delay),
        decoder,
        trusted_hosts=[*LOCAL_HOSTS, *args.trusted_host],
        num_proxies=args.behind_proxy,
        allowed_origins=args.allow_origin,
    )
    address = f"http://{args.host}:{listener.getsockname()[1]}"
    cxr.site.server.serve(
        application,
        listener,
        functools.partial(site.server_error_page, application, prefix=args.url_prefix),
        started=lambda: print(f"Listening on {address} as {os.getpid()}", flush=True),
        url_prefix=args.url_prefix,
        forwarded_headers=args.behind_proxy > 0,
    )
    decoder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
