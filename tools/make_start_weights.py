"""Turn a trained model file into start weights: backbone and head in half precision (14 MB).

    python -m tools.make_start_weights --origin "10,000 phantom radiographs, 8 epochs"

`main_train.py` starts from the file it writes where ImageNet's weights cannot be fetched.
"""

import argparse
import sys
from pathlib import Path

from cxr.network.model_info import ModelFileError
from cxr.system.atomic_files import describe_error

MODEL_DIR = Path(__file__).resolve().parent.parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--origin", required=True, help="what the model was trained on; every later run reports it")
    parser.add_argument("--model-path", type=Path, default=MODEL_DIR / "chest_xray_densenet_model.h5",
                        help="(default: model/chest_xray_densenet_model.h5)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=MODEL_DIR / "start_weights.h5",
                        help="(default: model/start_weights.h5)")  # fmt: skip
    args = parser.parse_args()
    from cxr.network.model_file import load_model  # Keras takes seconds, and --help does without
    from cxr.network.start_weights import save_start_weights

    try:
        model, info = load_model(args.model_path)
        save_start_weights(model, args.out, args.origin, info.findings)
    except ModelFileError as error:
        sys.exit(f"{error}")
    except OSError as error:
        sys.exit(describe_error(error))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {args.origin}")


if __name__ == "__main__":
    main()
