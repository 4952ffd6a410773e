"""Average the weights of several trainings from the same start: one network that answers about as all of them together.

    python -m tools.average_models a.h5 b.h5 --out mean.h5
    python main_train.py ... --weights mean.h5 --epochs 0 --model-path model.h5    # thresholds, calibration, report

The mean of weights (Wortsman et al. 2022, "Model soups") is worth something only between trainings that began with the
same weights. What it writes is a weights file: thresholds, calibration and input check belong to the new network and
are fitted by main_train.py on the validation split.
Exit codes: 0 done, 2 model files that cannot be used or do not belong together, 3 a file that cannot be written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.inference.backend import BackendError, choose_inference_backend, load_keras
from cxr.network.model_info import ModelFileError
from cxr.system.terminal import fail, say

if TYPE_CHECKING:
    import keras


def average(models: Sequence["keras.Model"]) -> "keras.Model":
    """Give the first network the mean of the weights of all, computed in float64, and return it.

    Args:
        models: networks of one shape; the moving statistics of batch normalisation are averaged like weights.
    """
    stacks = zip(*(model.get_weights() for model in models), strict=True)
    models[0].set_weights([np.mean([np.float64(one) for one in stack], axis=0) for stack in stacks])
    return models[0]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="two or more model files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="weights file, half precision, 14 MB")
    args = parser.parse_args(argv)
    if len(args.models) < 2:
        parser.error(f"expected two or more model files, received {len(args.models)}")
    try:
        choose_inference_backend()
        load_keras()
        from cxr.network.model_file import load_model
        from cxr.network.start_weights import save_start_weights

        loaded = [load_model(path) for path in args.models]
        findings = loaded[0][1].findings
        for path, (_, info) in zip(args.models, loaded, strict=True):
            if info.findings != findings:
                raise ModelFileError(
                    f"{path}: expected the findings of {args.models[0]} in their order, {', '.join(findings)}; found "
                    f"{', '.join(info.findings)}. Average trainings on the same table."
                )
        origins = list(dict.fromkeys(info.weights_origin for _, info in loaded))
        origin = f"the mean of {len(loaded)} trainings, each begun from {' or '.join(origins)}"
        save_start_weights(average([model for model, _ in loaded]), args.out, origin, findings)
    except (BackendError, ModelFileError) as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 3)
    say(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {origin}")
    if len(origins) > 1:
        say("They began from different weights; the mean of such trainings is rarely of use.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
