"""The command line of main_train.py: its flags, their defaults and limits.

What says which data there are and how to train on them is apart: tools that train by the same loop take it too.
"""

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from cxr.data.checks import SPLIT_NAMES
from cxr.training.data_sets import FurtherSet
from cxr.training.recipe import RATE_FROM_NONE, RATE_PRETRAINED, RecipeDefaults, add_recipe_flags, number

SET_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
DEFAULT_TABLES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}
ALLOWABLE = (
    "leakage", "no-patients", "missing", "blank", "blank-zero", "uncertain-zero", "uncertain-one", "uncertain-blank",
)  # fmt: skip


def parse_args(argv: list[str] | None, *, description: str, data_dir: Path, model_path: Path) -> argparse.Namespace:
    """Read the command line; `data_dir` holds the CSVs and images that are taken by default.

    Args:
        model_path: where the model is saved by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = add_data_flags(parser, data_dir)
    data.add_argument(
        "--also-test",
        nargs="+",
        action="append",
        metavar=("NAME", "CSV"),
        default=[],
        help="test the model on the radiographs of another CSV too, apart, and store the results under NAME; after the "
        "CSV the folder of its images may follow (default: that of the three CSVs). May be repeated. Where NAME is "
        "also the folder that the names of training images begin with, a picture like those is told these results. "
        "--where chooses its rows too where it has the column",
    )
    data.add_argument(
        "--describe",
        nargs=2,
        action="append",
        metavar=("NAME", "TEXT"),
        default=[],
        help="what the radiographs of a test set are, in words, for the pages; may be repeated. The test split's NAME "
        "is the folder that all its image names begin with, or test",
    )
    _add_training_flags(parser)
    _add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    _check_evaluation(parser, args)
    complete_data(args, data_dir)
    args.model_path = args.model_path or model_path
    args.work_dir = args.work_dir or data_dir
    args.also_test = [_further_set(parser, words, args.image_dir) for words in args.also_test]
    names = [one.name for one in args.also_test]
    if len(set(names)) < len(names):
        parser.error("argument --also-test: expected a NAME of its own for each set")
    args.describe = dict(args.describe)
    return args


def add_data_flags(parser: argparse.ArgumentParser, data_dir: Path) -> argparse._ArgumentGroup:
    """Add the flags that say which data there are; `data_dir` holds the images that are taken by default."""
    data = parser.add_argument_group("data")
    for name, file in DEFAULT_TABLES.items():
        help_text = f"labels of the {name} split (default: {file} beside main_train.py)"
        data.add_argument(f"--{name}-csv", type=Path, metavar="FILE", help=help_text)
    data.add_argument(
        "--image-dir",
        type=Path,
        metavar="DIR",
        default=data_dir / "images",
        help="folder that the image names in the CSVs are relative to (default: images beside main_train.py)",
    )
    data.add_argument(
        "--findings",
        type=_comma_separated,
        metavar="A,B",
        help="columns to learn (default: every column besides image, patient and what is no finding by its name)",
    )
    data.add_argument(
        "--finding",
        action="append",
        metavar="NAME",
        help="one more column to learn, whose name may have commas; repeatable",
    )
    data.add_argument(
        "--where",
        type=_column_and_value,
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="read only the rows with this value; repeated for one column, any of its values",
    )
    data.add_argument(
        "--allow",
        type=_allowed_faults,
        metavar="A,B",
        default=[],
        help="accept what otherwise stops the run: leakage (a patient in two splits: scores will be too good), "
        "no-patients (a table without patient ids: each image counts as a patient of its own), missing (rows without "
        "image file are left out, up to 1 %% of a split), blank (an empty label is left out of loss and metrics), "
        "blank-zero (an empty label means absent), uncertain-zero, uncertain-one or uncertain-blank (what the label -1 "
        "means)",
    )
    data.add_argument(
        "--check",
        nargs="?",
        const="files",
        choices=("files", "deep"),
        help="check the data and stop; with 'deep', decode every image too and look for copies across the splits",
    )
    return data


def complete_data(args: argparse.Namespace, data_dir: Path) -> None:
    """Fill in the default tables, and gather what was given bit by bit."""
    for name, file in DEFAULT_TABLES.items():
        if getattr(args, f"{name}_csv") is None:
            setattr(args, f"{name}_csv", data_dir / file)
    where: dict[str, frozenset[str]] = {}
    for column, value in args.where:
        where[column] = where.get(column, frozenset()) | {value}
    args.where = where
    if args.finding:
        args.findings = [*(args.findings or []), *args.finding]


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the training itself."""
    training = parser.add_argument_group("training")
    training.add_argument(
        "--model-path",
        type=h5_file,
        metavar="FILE",
        help="where the model is saved; a model of other data there is kept as FILE's name with .previous "
        "(default: model/chest_xray_densenet_model.h5)",
    )
    training.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder in which cache, logs and reports are made, for --evaluate too (default: beside main_train.py)",
    )
    rates = f"{RATE_FROM_NONE:g} from random weights, {RATE_PRETRAINED:g} else"
    usual = RecipeDefaults(
        image_size=192,
        epochs=4,
        epochs_help="4; from none, 30 and more; 0 takes --weights as they are",
        rate_help=rates,
    )
    add_recipe_flags(training, usual)
    training.add_argument(
        "--box-weight",
        type=number(float, 0, 10),
        metavar="W",
        default=0.0,
        help="of the loss that asks evidence to lie inside the training pictures' --boxes (default: 0, none)",
    )
    training.add_argument(
        "--teacher",
        type=Path,
        action="append",
        metavar="FILE",
        default=[],
        help="another network, whose features and answers are learned beside the labels: a file of python -m "
        "tools.train_teacher, a model file, or a table of probabilities (.csv); may be repeated. A network speaks for "
        "pictures in the folders of its own training images, and for findings that it knows by name",
    )
    training.add_argument(
        "--weights",
        metavar="START",
        default="imagenet",
        help="imagenet (downloaded once; without a network model/start_weights.h5, or none), none, a name that "
        "python -m tools.get_model lists, or a weights file: .h5, .safetensors, .pt, .pth, .bin (default: imagenet)",
    )
    training.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="boxes in NIH's BBox_List format, to score the heatmaps on the test split and for --box-weight "
        "(default: sample_boxes.csv beside this script, for the test split that it belongs to)",
    )


def _add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of an evaluation without training."""
    evaluation = parser.add_argument_group("evaluation of a model file, without training")
    evaluation.add_argument(
        "--evaluate",
        type=Path,
        metavar="MODEL",
        help="evaluate this model file on the test split and report on it. Where --val-csv is given, fit thresholds, "
        "calibration and input check to that split (the input check to the images of --train-csv, where that is given "
        "too) and write them into a copy, --model-path. Findings are matched by name",
    )
    evaluation.add_argument(
        "--against",
        type=Path,
        metavar="MODEL",
        help="compare the model of --evaluate with this one, picture by picture",
    )


def _check_evaluation(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Hold the flags of an evaluation together; note in `refit_tables` and `refit_path` what was given for a refit."""
    args.refit_tables = {name: path for name in ("val", "train") if (path := getattr(args, f"{name}_csv")) is not None}
    args.refit_path = args.model_path
    if args.evaluate is None:
        if args.against is not None:
            parser.error("argument --against: belongs to --evaluate")
        return
    if args.also_test or args.describe:
        parser.error("argument --evaluate: one test set at a time, without --also-test and --describe")
    if args.against is not None and args.refit_tables:
        parser.error("argument --against: compares models as they are; refit first, then compare the copy")
    if "train" in args.refit_tables and "val" not in args.refit_tables:
        parser.error("argument --train-csv: with --evaluate it needs --val-csv, which the model is fitted to")
    if ("val" in args.refit_tables) != (args.refit_path is not None):
        parser.error("argument --evaluate: --val-csv and --model-path, for the fitted copy, belong together")
    if args.refit_path is not None and args.refit_path.resolve() == args.evaluate.resolve():
        parser.error("argument --model-path: expected another file than that of --evaluate, which stays as it is")


def _further_set(parser: argparse.ArgumentParser, words: Sequence[str], image_dir: Path) -> FurtherSet:
    """Check the words behind one --also-test."""
    name, *places = words
    if len(places) not in (1, 2):
        parser.error(f"argument --also-test: expected NAME CSV, or NAME CSV FOLDER; received {' '.join(words)!r}")
    if not SET_NAME.fullmatch(name) or name in SPLIT_NAMES:
        parser.error(
            f"argument --also-test: expected a NAME of letters, digits and underscores, other than "
            f"{', '.join(SPLIT_NAMES)}; received {name!r}"
        )
    return FurtherSet(name, Path(places[0]), Path(places[1]) if len(places) == 2 else image_dir)


def h5_file(text: str) -> Path:
    """Check the name of a file that will be written, for argparse."""
    path = Path(text)
    if path.suffix != ".h5" or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected the name of a file that ends in .h5; received {text!r}")
    return path


def _comma_separated(text: str) -> list[str]:
    """Split "A,B" into names, for argparse."""
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])  # a quoted name may have commas
    except csv.Error as error:
        raise argparse.ArgumentTypeError(f"expected names separated by commas ({error})") from error
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected one name or more, separated by commas")
    return names


def _allowed_faults(text: str) -> list[str]:
    """Split and check the value of --allow, for argparse."""
    names = _comma_separated(text)
    if "fresh" in names:
        raise argparse.ArgumentTypeError("fresh accepts no data problem and is a flag of its own: give --fresh instead")
    unknown = [name for name in names if name not in ALLOWABLE]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(ALLOWABLE)}; received {', '.join(unknown)}")
    for prefix, meaning in (("uncertain-", "-1 (uncertain-...)"), ("blank", "a blank label (blank or blank-zero)")):
        if sum(name.startswith(prefix) for name in set(names)) > 1:
            raise argparse.ArgumentTypeError(f"expected at most one meaning of {meaning}")
    return names


def _column_and_value(text: str) -> tuple[str, str]:
    """Split "COLUMN=VALUE", for argparse."""
    column, separator, value = (part.strip() for part in text.partition("="))
    if not separator or not column:
        raise argparse.ArgumentTypeError(f"expected COLUMN=VALUE; received {text!r}")
    return column, value
