"""Train and evaluate: three CSVs and a folder of radiographs in, a model and a report out.

python main_train.py                                # check the data beside this script, then train
python main_train.py --check                        # only check the CSVs and that the images are there
python main_train.py --check deep                   # the same, and decode every image
python main_train.py --train-csv a.csv --val-csv b.csv --test-csv c.csv --image-dir xrays --findings Edema,Hernia
python main_train.py --weights none --image-size 224 --epochs 60
python main_train.py --evaluate MODEL.h5 --test-csv c.csv --image-dir xrays     # report on any model, no training
python main_train.py --evaluate MODEL.h5 --val-csv b.csv --test-csv c.csv --image-dir xrays --model-path OUT.h5
python main_train.py --evaluate A.h5 --against B.h5 --test-csv c.csv --image-dir xrays

A run that was stopped or killed goes on where it was when the same command is given again.
Exit codes: 0 done, 2 bad arguments or data, 3 a file or folder is missing, full or cannot be used, 4 the training
diverged, 5 another run is going on, 6 another process of this run has gone, 129 its terminal was closed, 130 stopped
with Ctrl-C, 143 stopped with SIGTERM.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.system.process import ending_signals, hold_standard_descriptors

if __name__ == "__main__":
    hold_standard_descriptors()

from cxr.data.boxes import Box, read_boxes, with_file_names
from cxr.data.cache import CachedSplit, cache_split, is_unchanged
from cxr.data.checks import DataCheck
from cxr.data.labels import Split, read_views
from cxr.data.problems import LabelError
from cxr.data.vocabulary import CellRules
from cxr.inference.backend import choose_training_backend
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.report.history import History, epoch_line, epoch_logger
from cxr.system.atomic_files import check_folder, free_folder, sweep_temp_files, training_lock
from cxr.system.terminal import SayHandler, say
from cxr.training.arguments import parse_args
from cxr.training.checkpoint import checkpoint_bytes, clear_checkpoints
from cxr.training.data_sets import (
    SAMPLE_DATA,
    check_data,
    check_further_sets,
    common_folder,
    is_sample,
    meanings,
    sources_of,
)
from cxr.training.recipe import choose_recipe
from cxr.training.run_control import StopRequest, configured_processes, exit_code_of, import_keras
from cxr.training.targets import Targets, training_targets

if TYPE_CHECKING:
    import keras


PROJECT_DIR = Path(__file__).resolve().parent  # the defaults work from any current directory
MODEL_PATH = PROJECT_DIR / "model" / "chest_xray_densenet_model.h5"
CHECKPOINTS = "checkpoints"  # folder beside the model
START_WEIGHTS_PATH = PROJECT_DIR / "model" / "start_weights.h5"
NEEDED_BYTES = 450_000_000  # three checkpoints of 113 MB (two kept, one being written) and three model files
NEEDED_TEACHER_BYTES = 80_000_000  # three times the map to one teacher's features, with its optimiser's variables
NEEDED_REPORT_BYTES = 20_000_000  # of a report with its pictures; the cache says itself what it needs
NUM_SHOWN = 10  # test images whose predictions are printed


def check_also_test(args: argparse.Namespace, data: DataCheck) -> DataCheck:
    """Check the sets of --also-test, and that --describe names what there is."""
    names = test_set_names(args, data)
    args.describe.setdefault(names[0], describe_data(data.splits.values(), args.image_dir))
    unknown = [name for name in args.describe if name not in names]
    if unknown or names[0] in names[1:]:
        raise LabelError(
            f"--describe {unknown[0]}: expected one of the test sets {', '.join(names)}."
            if unknown
            else f"--also-test {names[0]}: the test split has that name already. Take another."
        )
    return check_further_sets(
        args.also_test,
        data.splits,
        args.image_dir,
        rules=CellRules(**meanings(args)),
        where=args.where,
        no_patients="no-patients" in args.allow,
        allow_leakage="leakage" in args.allow,
        skip_missing="missing" in args.allow,
    )


def check_weights_file(args: argparse.Namespace) -> None:
    """Look for the weights, which are read only after every image has been decoded. Raises: ModelFileError."""
    weights = Path(args.weights)  # or a name
    if (weights.suffix or weights.parent != Path()) and not weights.is_file():
        raise ModelFileError(f"{weights}: no such weights file. Give another file to --weights, imagenet or none.")


def test_set_names(args: argparse.Namespace, data: DataCheck) -> list[str]:
    """Name the test split, after the folder of its images or else "test", and the sets of --also-test."""
    return [common_folder(data.splits["test"]) or "test", *(one.name for one in args.also_test)]


def read_targets(args: argparse.Namespace, data: DataCheck) -> tuple[Sequence[Box], Targets]:
    """Read the boxes, and what is learned beside the labels: now, not after hours of decoding.

    Raises: BoxError, LabelError, OSError.
    """
    boxes = read_boxes(args.boxes) if args.boxes else default_boxes(data.splits["test"], args.image_dir)
    of_train = with_file_names(boxes, data.found["train"])
    return boxes, training_targets(data.splits["train"], of_train, args.box_weight, args.soft_labels)


def check_teachers(args: argparse.Namespace, train: Split) -> None:
    """Look at the teachers' files before anything is decoded, and say what they can teach.

    Raises: LabelError, ModelFileError.
    """
    if args.teacher:
        import_keras()
        from cxr.distillation.lessons import describe_lessons, plan_lessons

        say(describe_lessons(plan_lessons(args.teacher, train), len(train.findings)))


def run(
    args: argparse.Namespace, data: DataCheck, also_test: DataCheck, boxes: Sequence[Box], targets: Targets
) -> None:
    """Run the story from checked data to the report."""
    first = configured_processes()[1] == 0  # of several processes, one writes
    folder, cache_dir = args.model_path.parent, args.work_dir / "cache"
    needed = NEEDED_BYTES + NEEDED_TEACHER_BYTES * len(args.teacher)
    check_folder(folder, needed - checkpoint_bytes(folder / CHECKPOINTS), "--model-path")
    for one in (cache_dir, args.work_dir / "reports"):
        check_folder(one, NEEDED_REPORT_BYTES, "--work-dir")
    with training_lock(folder) if first else contextlib.nullcontext():
        if first:
            sweep_temp_files(folder)
            sweep_temp_files(folder / CHECKPOINTS)
            if args.fresh:
                clear_checkpoints(folder / CHECKPOINTS)
        cached = {
            name: cache_split(split, args.image_dir, args.image_size, cache_dir) for name, split in data.splits.items()
        }
        names = test_set_names(args, data)
        test_sets = {names[0]: cached["test"]} | {
            one.name: cache_split(also_test.splits[one.name], one.image_dir, args.image_size, cache_dir)
            for one in args.also_test
        }
        found = {names[0]: data.found["test"]} | also_test.found
        devices = start_keras()
        network, history = train(args, cached, devices, targets)
        patients = {"leakage": any(data.shared_patients.values()), "patients_known": data.patients_known}
        info = save(args, network, cached, history, names, patients)
        evaluate_and_report(args, cached, test_sets, found, network, info, history, boxes)
        if first:
            clear_checkpoints(folder / CHECKPOINTS)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate, refit or compare model files; return the exit code."""
    start_keras()
    from cxr.report.model_evaluation import EvaluationRequest, evaluate_model
    from gradcam import ANATOMY_PATH

    allowed = {"no_patients": "no-patients", "allow_leakage": "leakage", "skip_missing": "missing"}
    options = {name: word in args.allow for name, word in allowed.items()} | meanings(args)
    request = EvaluationRequest(
        model=args.evaluate,
        against=args.against,
        tables={**args.refit_tables, "test": args.test_csv},
        image_dir=args.image_dir,
        findings=args.findings,
        boxes_of=lambda test: read_boxes(args.boxes) if args.boxes else default_boxes(test, args.image_dir),
        out=args.refit_path,
        check_options={"where": args.where, **options},
        check_only=args.check is not None,
        seed=args.seed,
        cache_dir=args.work_dir / "cache",
        report_dir=args.work_dir / "reports",
        anatomy=ANATOMY_PATH,
    )
    with training_lock(args.refit_path.parent) if args.refit_path else contextlib.nullcontext():
        return evaluate_model(request)


def start_keras() -> str:
    """Import Keras, which takes seconds, and meet the other processes; return in words what computes."""
    import_keras()
    from cxr.training.parallel import join

    return join()


def train(
    args: argparse.Namespace, cached: dict[str, CachedSplit], devices: str, targets: Targets
) -> tuple["keras.Model", History]:
    """Build and train the network; return it with its best weights, and the run's history."""
    import keras

    from cxr.network.densenet import SMALL_DATA_MOMENTUM, build_network, choose_precision, fuse
    from cxr.network.start_weights import load_start_weights
    from cxr.training.loop import fit
    from cxr.training.parallel import is_first
    from cxr.training.validation_fit import as_saved

    findings, precision = cached["train"].split.findings, choose_precision()
    keras.utils.set_random_seed(args.seed)
    network = fuse(build_network(findings, args.image_size, SMALL_DATA_MOMENTUM, precision))
    start = load_start_weights(network, findings, args.weights, START_WEIGHTS_PATH)
    if start.note:
        say(start.note)
    if not (args.epochs or start.head):
        raise ModelFileError(
            f"--epochs 0 trains nothing, and --weights {args.weights} gives no head for these findings. Give weights "
            "that were trained on the same findings, or one epoch and more."
        )
    recipe = choose_recipe(args, start, precision)
    say(
        f"Training on {keras.backend.backend()}, {devices}, in {precision} from {start.origin}, {recipe.epochs} epochs."
    )
    log = epoch_logger(args.work_dir / "logs") if is_first() else lambda rows: None

    def on_epoch(rows: list[dict]) -> None:
        say(epoch_line(rows[-1], recipe.epochs))
        log(rows)

    checkpoints, learned, teaching = args.model_path.parent / CHECKPOINTS, cached["train"], None
    if args.teacher:
        from cxr.distillation.taught_batches import load_teaching

        teaching = load_teaching(args.teacher, learned.split, precision)
        if teaching.picture_size > args.image_size:
            learned = cache_split(learned.split, args.image_dir, teaching.picture_size, args.work_dir / "cache")
    with StopRequest() as stop:
        history = fit(network, learned, cached["val"], recipe, checkpoints, stop, on_epoch, *targets, teaching)
    return as_saved(network, findings, args.image_size), History(recipe, history)


def save(
    args: argparse.Namespace,
    network: "keras.Model",
    cached: dict[str, CachedSplit],
    history: History,
    test_sets: Sequence[str],
    patients: dict[str, bool],
) -> ModelInfo:
    """Fit thresholds, calibration and input check on the validation split, and save the model."""
    from cxr.network.model_file import keep_previous, save_model
    from cxr.training.parallel import alone, is_first
    from cxr.training.validation_fit import describe_model, library_versions

    settings = dataclasses.asdict(history.recipe) | {"versions": library_versions()}
    origin = history.recipe.weights_origin
    data = describe_data([one.split for one in cached.values()], args.image_dir)
    if data and not all(is_unchanged(one, args.image_dir) for one in cached.values()):
        data = ""  # the sample lies there now, and was not what the model has learned from
    known = {"data": data, "weights_origin": origin, "settings": settings} | patients
    sources = sources_of(cached["train"].split, test_sets)
    info = describe_model(network, cached, {name: args.describe.get(name, "") for name in sources}, **known)
    if not is_first():
        return info
    path = args.model_path
    with alone():  # files are read back, which is no business of the other processes
        kept = keep_previous(path, info.data_fingerprint)
        info = save_model(network, info, path)
    if kept:
        say(f"{path} held a model that was not made from these data; it is kept as {kept.name}.")
    say(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB).")
    return info


def evaluate_and_report(
    args: argparse.Namespace,
    cached: dict[str, CachedSplit],
    test_sets: dict[str, CachedSplit],
    found: dict[str, dict[str, str]],
    network: "keras.Model",
    info: ModelInfo,
    history: History,
    boxes: Sequence[Box],
) -> None:
    """Evaluate every test set, write the numbers into the model file, and write and print the report.

    Args:
        test_sets: the test split first; the report is about that one.
        found: of each test set, listed image name -> name of the file, where the two differ.
        boxes: by listed names.
    """
    from cxr.anatomy.outline_model import outline_model_at
    from cxr.network.model_file import save_model
    from cxr.report.gallery import make_gallery
    from cxr.report.report_files import write_report
    from cxr.report.report_page import describe_run
    from cxr.report.summary import describe_predictions, localisation_table, ranking_line, terminal_table
    from cxr.report.test_evaluation import evaluate_test, summarise, summarise_set
    from cxr.training.parallel import alone, is_first, is_several
    from gradcam import ANATOMY_PATH, heatmaps

    # Not where several processes compute together: a network of one's own is no business of the others.
    outline_model = outline_model_at(ANATOMY_PATH, say) if boxes and not is_several() else None
    evaluated = {
        name: evaluate_test(network, info, one, with_file_names(boxes, found[name]), args.seed, outline_model)
        for name, one in test_sets.items()
    }
    if not is_first():  # its devices were needed for the predictions
        return
    tables = [args.test_csv, *(one.table for one in args.also_test)]
    summaries = {
        name: summarise_set(one, info, args.describe.get(name, ""), read_views(table, found[name]), args.seed)
        for (name, one), table in zip(evaluated.items(), tables, strict=True)
    }
    results = next(iter(evaluated.values()))
    with alone():
        info = dataclasses.replace(info, test_metrics=summarise(results.evaluation), test_sets=summaries)
        info = save_model(network, info, args.model_path)
    predictions = results.predictions
    maps = heatmaps(results.case_features, results.head_kernel)
    gallery = make_gallery(results.cases, maps, predictions, args.image_dir, info.threshold, results.case_contents)
    splits = [one.split for one in cached.values()]
    folder = free_folder(args.work_dir / "reports" / datetime.now().strftime("%Y-%m-%d_%H%M%S"))
    record = describe_run(folder.name, info, history, splits)
    page = write_report(
        folder,
        results.evaluation,
        predictions,
        record,
        results.calibration,
        results.localisation,
        gallery,
    )
    say(terminal_table(results.evaluation))
    if text := localisation_table(results.localisation):
        say(text)
    for name, one in list(evaluated.items())[1:]:
        say(f"{name}: {ranking_line(one.evaluation)}")
    shown = slice(0, NUM_SHOWN)
    for line in describe_predictions(predictions.images[shown], predictions.probabilities[shown], info.findings):
        say(line)
    say(f"Report: {page}")


def describe_data(splits: Iterable[Split], image_dir: Path) -> str:
    """Say what the radiographs are where they are known to be the sample's; else nothing."""
    return SAMPLE_DATA if all(is_sample(split, image_dir) for split in splits) else ""


def default_boxes(test: Split, image_dir: Path) -> Sequence[Box]:
    """Read the sample's boxes where the test split is the sample's."""
    path = PROJECT_DIR / "sample_boxes.csv"
    return read_boxes(path) if is_sample(test, image_dir) and path.is_file() else ()


def check_and_run(args: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code."""
    if configured_processes()[1]:  # the first process speaks for all
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of the process
    if not args.check or args.evaluate or args.teacher:
        choose_training_backend()  # now, not after hours of decoding
    if args.evaluate:
        return evaluate(args)
    check_weights_file(args)
    data = check_data(args)
    say(data.as_text())
    if data.faults:
        return data.exit_code
    also_test = check_also_test(args, data)
    if args.also_test:
        say(also_test.as_text())
    if also_test.faults:
        return also_test.exit_code
    boxes, targets = read_targets(args, data)
    check_teachers(args, data.splits["train"])
    if args.check:
        return also_test.exit_code
    run(args, data, also_test, boxes, targets)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parse_args(argv, description=__doc__, data_dir=PROJECT_DIR, model_path=MODEL_PATH)
    # Names from the user's files must not stop a run on a terminal that cannot show them.
    sys.stdout.reconfigure(errors="backslashreplace")
    for number in ending_signals():
        if number != signal.SIGINT:  # Python makes an exception of it, as this does of the others
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    logging.basicConfig(handlers=[SayHandler()], level=logging.WARNING, force=True)
    logging.getLogger("cxr").setLevel(logging.INFO)  # not the libraries', which report on their fonts and caches
    return exit_code_of(lambda: check_and_run(args), args.batch_size)


if __name__ == "__main__":
    raise SystemExit(main())
