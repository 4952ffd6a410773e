"""Bring a published chest X-ray model here: download it, convert it, check it, and write it as a model file.

    python -m tools.get_model                          # the models that are known, with licence and published figure
    python -m tools.get_model medmae-mae               # download and write model/medmae-mae.h5
    python -m tools.get_model --file weights.pth --findings Atelectasis,,Edema --mean 0.5056 --std 0.252 \\
        --image-size 256 --out model/mine.h5           # the same for a file at hand, without its second output

Files are .safetensors, or .pt, .pth and .bin with a state dict in torchvision's DenseNet121 layout; nothing in them is
executed. The environment variable HF_ENDPOINT names another hub than https://huggingface.co.
Exit codes: 0 done, 2 bad arguments, or a file that cannot be used or fetched, 3 the model file cannot be written, 130
stopped with Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from cxr.data.columns import name_key
from cxr.inference.backend import BackendError, choose_inference_backend
from cxr.system.terminal import fail, say

if __name__ == "__main__":
    try:
        choose_inference_backend()
    except BackendError as error:
        sys.exit(fail(error, 2))

import numpy as np

from cxr.inference.predictor import Predictor, compile_network, with_named_outputs
from cxr.network.densenet import build_network
from cxr.network.known_models import KNOWN_MODELS, PublishedModel, fetch
from cxr.network.model_file import MAX_IMAGE_SIZE, save_model
from cxr.network.model_info import ModelFileError, ModelInfo, SelfCheckPicture, draw_self_check_picture
from cxr.network.published_weights import PublishedWeights, read_published_weights
from cxr.system.atomic_files import replacing

MODEL_DIR = Path(__file__).resolve().parent.parent / "model"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of the known models (default: list them)")
    parser.add_argument("--file", type=Path, metavar="FILE", help="convert this file instead of downloading one")
    parser.add_argument("--findings", metavar="A,B", help="the finding of each output of --file; empty: left out")
    parser.add_argument(
        "--mean", type=_numbers, metavar="M", help="what its network subtracts from grey values of 0 to 1; one number "
        "or one per channel"
    )  # fmt: skip
    parser.add_argument("--std", type=_numbers, metavar="S", help="what its network then divides by")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side that it resizes radiographs to")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the model file (default: model/NAME.h5)")
    args = parser.parse_args(argv)
    given = [args.findings, args.mean, args.std, args.image_size]
    if args.file is None:
        if any(one is not None for one in given) or (args.out and not args.name):
            parser.error("--findings, --mean, --std and --image-size belong to --file; --out to --file or a NAME")
    elif args.name or any(one is None for one in given):
        parser.error("--file needs --findings, --mean, --std and --image-size, and no NAME")
    elif (
        not args.findings.replace(",", "").strip() or not 32 <= args.image_size <= MAX_IMAGE_SIZE or min(args.std) <= 0
    ):
        parser.error(f"expected a finding or more, --image-size from 32 to {MAX_IMAGE_SIZE} and --std above 0")
    elif len(args.mean) != len(args.std):
        parser.error("expected as many numbers for --mean as for --std")
    else:
        keys = [name_key(name) for name in args.findings.split(",") if name.strip()]
        if len(keys) != len(set(keys)):
            parser.error("expected each finding once in --findings")
    return args


def _numbers(text: str) -> tuple[float, ...]:
    """Read one number, or one per channel, for argparse."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        raise argparse.ArgumentTypeError(f"expected one number or three, separated by commas; received {text!r}")
    return numbers


def describe_known() -> str:
    """Return the table of known models as text."""
    parts = []
    for model in KNOWN_MODELS.values():
        size = f"{model.megabytes:g} MB" if model.megabytes else "size not known"
        findings = ", ".join(model.findings) or "none: start weights, for main_train.py --weights " + model.name
        figure = f"{model.figure} ({model.figure_source}); not measured here" if model.figure else "none"
        lines = (
            model.name,
            f"findings: {findings}",
            f"trained on: {model.trained_on}",
            f"licence: {model.licence}",
            f"published figure: {figure}",
            f"file: {model.repository}/{model.file}, {size}",
        )
        parts.append("\n    ".join(lines))
    return "\n".join(parts)


def described_file(args: argparse.Namespace) -> PublishedModel:
    """Describe the file at hand by what the command line says of it."""
    return PublishedModel(
        name=args.file.stem,
        outputs=tuple(name.strip() for name in args.findings.split(",")),
        mean=args.mean,
        std=args.std,
        image_size=args.image_size,
        trained_on="",
        licence="",
    )


def write_model(weights: PublishedWeights, model: PublishedModel, origin: str, out: Path) -> ModelInfo:
    """Build the network, check it against itself on this machine's engine, and only then write the model file.

    Raises:
        ModelFileError: the converted network does not answer as it should.
        OSError: the file cannot be written.
    """
    network = build_network(model.findings, model.image_size)
    weights.copy_to(network, model.named_columns)
    picture = draw_self_check_picture(model.image_size)
    (run_one,), _ = compile_network(with_named_outputs(network))
    _, _, probabilities = run_one(picture[np.newaxis].astype(np.float32))
    info = ModelInfo(
        findings=model.findings,
        image_size=model.image_size,
        thresholds=tuple(model.thresholds[column] for column in model.named_columns) if model.thresholds else (),
        threshold_rule=model.threshold_rule,
        feature_shape=tuple(network.get_layer("relu").output.shape[1:]),
        data=f"{model.trained_on}; {model.note}" if model.note else model.trained_on,
        weights_origin=origin,
        licence=model.licence,
        published={"figure": model.figure, "source": model.figure_source} if model.figure else {},
        self_check=SelfCheckPicture(picture, probabilities[0]),
    )
    with replacing(out) as temp:
        info = save_model(network, info, temp)
        Predictor(temp)
    return info


def run(args: argparse.Namespace) -> None:
    """Fetch or take the file, convert it, and say what to do with it.

    Raises:
        ModelFileError: with what was expected and what was found.
        OSError: the model file cannot be written.
    """
    if args.file is not None:
        model, path, origin = described_file(args), args.file, f"converted from {args.file.name}"
    else:
        model = KNOWN_MODELS[args.name]
        path, origin = fetch(model), f"{model.repository}/{model.file} at {model.revision}, converted"
    weights = read_published_weights(path, model.mean, model.std, len(model.outputs) or None)
    if not model.outputs:
        say(f"{path}: start weights without findings. To train from them: python main_train.py --weights {model.name}")
        return
    out = args.out or MODEL_DIR / f"{model.name}.h5"
    info = write_model(weights, model, origin, out)
    say(f"{out}: {len(info.findings)} findings at {info.image_size} px, {out.stat().st_size / 1e6:.1f} MB; checked.")
    if model.figure:
        say(f"Published: {model.figure} ({model.figure_source}); not measured here. Licence: {model.licence}.")
    say(f"To serve it: python app.py --model-path {out}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    if args.name is None and args.file is None:
        say(describe_known())
        return 0
    if args.name is not None and args.name not in KNOWN_MODELS:
        return fail(f"{args.name}: not one of the known models: {', '.join(KNOWN_MODELS)}.", 2)
    try:
        run(args)
    except ModelFileError as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 3)
    except KeyboardInterrupt:
        return fail("Stopped; the same command goes on with the download.", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
