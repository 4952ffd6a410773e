"""Run main_train.py with a small network on the JAX backend, for the tests of several processes; started by them.

python parallel_run.py FOLDER SECONDS_PER_BATCH [flags of main_train.py]
"""

import os
import sys
import time
from pathlib import Path

import main_train
from cxr.report import history
from cxr.training import checkpoint


def run_small(folder: Path, seconds: float, flags: list[str]) -> int:
    """Let the script find its files in `folder`, and take its time over each batch."""
    from small_network import build_small_network

    import cxr.data.batches
    import cxr.network.densenet
    import cxr.report.report_files
    import cxr.training.loop

    root, main_train.PROJECT_DIR = main_train.PROJECT_DIR, folder
    for name in ("MODEL_PATH", "START_WEIGHTS_PATH"):
        setattr(main_train, name, folder / getattr(main_train, name).relative_to(root))
    main_train.epoch_logger = lambda logs: lambda rows: history.write_history(rows, logs / "history.csv")
    cxr.network.densenet.build_network = lambda findings, size, *_: build_small_network(findings, size)
    cxr.report.report_files.write_report = lambda reports, *_: reports / "report.html"
    cxr.training.loop.CHECKPOINT_SECONDS = 0.0
    get_batch = cxr.data.batches.RadiographBatches.__getitem__

    def get_slowly(self, index):
        time.sleep(seconds)
        return get_batch(self, index)

    cxr.data.batches.RadiographBatches.__getitem__ = get_slowly
    write_checkpoint = checkpoint.write_checkpoint

    def write_and_tell(*args):
        write_checkpoint(*args)
        print("checkpoint", flush=True)

    cxr.training.loop.write_checkpoint = write_and_tell
    return main_train.main(["--weights", "none", "--image-size", "32", "--batch-size", "4", *flags])


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    raise SystemExit(run_small(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
