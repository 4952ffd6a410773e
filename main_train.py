"""Train and evaluate: three CSVs and a folder of radiographs in, a model and a report out.

python main_train.py                                # check the data beside this script, then train
python main_train.py --check                        # only check the CSVs and that the images are there
python main_train.py --check deep                   # the same, and decode every image
python main_train.py --train-csv a.csv --val-csv b.csv --test-csv c.csv --image-dir xrays --findings Edema,Hernia

Exit codes: 0 done, 2 bad arguments or data, 3 a file or folder is missing or cannot be read.
"""

import argparse
import sys
from pathlib import Path

from cxr.checks import DataCheck, check_splits

PROJECT_DIR = Path(__file__).resolve().parent  # the defaults work from any current directory
ALLOWABLE = ("leakage", "missing", "blank", "uncertain-zero", "uncertain-one", "uncertain-blank")


def comma_separated(text: str) -> list[str]:
    """Split "A,B" into names, for argparse."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected one name or more, separated by commas")
    return names


def allowed_faults(text: str) -> list[str]:
    """Split and check the value of --allow, for argparse."""
    names = comma_separated(text)
    unknown = [name for name in names if name not in ALLOWABLE]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(ALLOWABLE)}; received {', '.join(unknown)}")
    if sum(name.startswith("uncertain-") for name in names) > 1:
        raise argparse.ArgumentTypeError("expected at most one meaning of -1 (uncertain-...)")
    return names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = parser.add_argument_group("data")
    for name, file in (("train", "train-small.csv"), ("val", "val_data.csv"), ("test", "test_data.csv")):
        help_text = f"labels of the {name} split (default: {file} beside this script)"
        data.add_argument(f"--{name}-csv", type=Path, metavar="FILE", default=PROJECT_DIR / file, help=help_text)
    data.add_argument(
        "--image-dir",
        type=Path,
        metavar="DIR",
        default=PROJECT_DIR / "images",
        help="folder that the image names in the CSVs are relative to (default: images beside this script)",
    )
    data.add_argument(
        "--findings",
        type=comma_separated,
        metavar="A,B",
        help="columns to learn (default: every column besides image and patient)",
    )
    data.add_argument(
        "--allow",
        type=allowed_faults,
        metavar="A,B",
        default=[],
        help="accept what otherwise stops the run: leakage (a patient in two splits: scores will be too good), "
        "missing (rows without image file are left out, up to 1 %% of a split), blank (an empty label is left out of "
        "loss and metrics), uncertain-zero, uncertain-one or uncertain-blank (what the label -1 means)",
    )
    data.add_argument(
        "--check",
        nargs="?",
        const="files",
        choices=("files", "deep"),
        help="check the data and stop; with 'deep', decode every image too and look for copies across the splits",
    )
    return parser.parse_args(argv)


def check_data(args: argparse.Namespace) -> DataCheck:
    """Check the CSVs and images that the command line names."""
    decode = None
    if args.check == "deep":
        from cxr.images import decode_radiograph as decode  # the plain check must not wait for image libraries
    uncertain = [name.removeprefix("uncertain-") for name in args.allow if name.startswith("uncertain-")]
    return check_splits(
        args.train_csv,
        args.val_csv,
        args.test_csv,
        args.image_dir,
        findings=args.findings,
        allow_blank="blank" in args.allow,
        uncertain=uncertain[0] if uncertain else None,
        allow_leakage="leakage" in args.allow,
        skip_missing="missing" in args.allow,
        decode=decode,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv)
    # Names from the user's files must not stop a run on a terminal that cannot show them.
    sys.stdout.reconfigure(errors="backslashreplace")
    data = check_data(args)
    print(data.as_text())
    if data.faults or args.check:
        return data.exit_code
    print("Training is not part of this version yet: the data was checked, no model was made.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
