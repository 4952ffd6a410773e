"""Grad-CAM heatmaps and overlays: the functions that the scripts share, and the command line for them.

    python gradcam.py IMAGE.png                         # top 3 findings of one radiograph -> gradcam_out/
    python gradcam.py images/ --finding Effusion        # one finding, a whole folder (PNG, JPEG, DICOM)
    python gradcam.py "images/*.png" --panel            # one picture per radiograph: overlays and all probabilities
    python gradcam.py images/ --boxes-out boxes.csv     # and boxes around what is hot, in NIH's format
    python gradcam.py study/ --dicom-out results/       # Secondary Capture and SR of each DICOM radiograph
    python gradcam.py images/ --masks-out masks         # and lungs and heart as masks
    python gradcam.py images/ --report                  # and a draft of a report on each

In Python:

    from cxr.inference.predictor import Predictor
    from gradcam import MODEL_PATH, explain, overlay_heatmap, read_radiograph
    radiograph = read_radiograph("images/00000001_000.png")  # uint8 (height, width)
    answer = explain(Predictor(MODEL_PATH), radiograph)  # probabilities, and heatmaps (findings, h, w)
    picture = overlay_heatmap(radiograph, answer.heatmaps[0])  # uint8 (height, width, 3), RGB, of the first finding

The formula is in cxr.heatmaps.gradcam, one radiograph's answer in cxr.heatmaps.explanation, colours in
cxr.heatmaps.overlay.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cxr.inference.backend import BackendError, choose_inference_backend, load_keras
from cxr.system.process import end_at_once_on_signals, hold_standard_descriptors
from cxr.system.terminal import fail

if __name__ == "__main__":
    hold_standard_descriptors()
    end_at_once_on_signals()  # every file is whole or not there, and the same command goes on
    try:
        choose_inference_backend()
    except BackendError as error:
        sys.exit(fail(error, 2))

from cxr.data.columns import name_key
from cxr.decoding.file_decoder import FileDecoder
from cxr.dicom_out.objects import NOT_INSTALLED, can_write_dicom
from cxr.heatmaps.explanation import INPUT_CHECK_WARNING, Explanation, above_threshold, explain, rank_findings
from cxr.heatmaps.gradcam import heatmaps
from cxr.heatmaps.overlay import overlay_heatmap
from cxr.imaging.radiograph import DecodedPicture, read_file, read_radiograph
from cxr.inference.answer_table import AnswerTable, work_ahead
from cxr.inference.picture_files import OutputNames, find_pictures, relative_names
from cxr.inference.table_columns import COLUMNS, table_header, table_row
from cxr.network.model_info import ModelFileError, ModelInfo
from cxr.outputs.answer_writer import AnswerWriter
from cxr.outputs.box_file import BoxFile
from cxr.outputs.dicom_files import DicomFiles
from cxr.outputs.draft_files import DraftFiles
from cxr.outputs.mask_files import MaskFiles
from cxr.outputs.overlay_files import OverlayFiles
from cxr.system.atomic_files import sole_use
from cxr.system.hdf5_guard import MemoryShortError
from cxr.system.progress import Progress
from cxr.system.terminal import say, show_what_cannot_be_encoded, visible

if TYPE_CHECKING:
    from cxr.anatomy.outline_model import OutlineModel
    from cxr.inference.predictor import Predictor

__all__ = ["MODEL_PATH", "explain", "heatmaps", "main", "overlay_heatmap", "read_radiograph"]

OUTPUT_OPTIONS = ("finding", "top", "all", "panel", "own_peak", "report", "chosen_thresholds")
MANY_FILES = 100  # from here on the predictor's side_by_side pays for its start
MODEL_PATH = Path(__file__).resolve().parent / "model" / "chest_xray_densenet_model.h5"
ANATOMY_PATH = MODEL_PATH.with_name("anatomy.h5")  # outlines lungs and heart; the answers do without it


class FindingNameError(ValueError):
    """A finding that the model does not know."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write Grad-CAM overlays and predictions.csv for radiographs (PNG, JPEG, DICOM).",
        epilog="A prototype for education, not for clinical use. "
        "Exit code: 0 all done, 1 some files could not be read, 2 nothing could be done, 3 --out cannot be written, "
        "129, 130 or 143 stopped by the end of the terminal, Ctrl-C or SIGTERM: the same command goes on.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image file, folder (searched recursively) or pattern")
    parser.add_argument("--out", type=Path, default=Path("gradcam_out"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--model-path",
        type=Path,
        default=MODEL_PATH,
        metavar="FILE",
        help="(default: model/chest_xray_densenet_model.h5)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--finding", action="append", metavar="NAME", help="overlay of this finding; may be repeated")
    which.add_argument("--top", type=int, default=3, metavar="N", help="overlays of the N most probable (default: 3)")
    which.add_argument("--all", action="store_true", help="overlays of all findings")
    parser.add_argument("--panel", action="store_true", help="one picture per image: overlays and all probabilities")
    parser.add_argument(
        "--boxes-out",
        type=Path,
        metavar="FILE",
        help="CSV of boxes around the hot regions, in NIH's BBox_List format, of the findings that overlays show; with "
        "--top 0 of those at or above the threshold",
    )
    parser.add_argument(
        "--dicom-out",
        type=Path,
        metavar="DIR",
        help="DICOM objects for the study of each DICOM file: Secondary Capture, structured report, outlines",
    )
    parser.add_argument(
        "--masks-out",
        type=Path,
        metavar="DIR",
        help="a PNG of each radiograph's name and size: 0 outside, 80 right lung, 160 left lung, 240 heart; all 0 "
        "where no two lungs are found",
    )
    parser.add_argument("--report", action="store_true", help="a draft of a report on each image, as text")
    parser.add_argument(
        "--chosen-thresholds",
        action="store_true",
        help="let --report go by the thresholds chosen on the validation split, not by the common one",
    )
    parser.add_argument(
        "--own-peak",
        action="store_true",
        help="stretch the colours of each heatmap to its own peak, however small; by default all findings of a picture "
        "share one scale, which ends at the largest of their peaks",
    )
    parser.add_argument(
        "--columns",
        type=_columns,
        default=COLUMNS[:1],
        metavar="NAMES",
        help=f"of predictions.csv for each finding, of {','.join(COLUMNS)} (default: probability)",
    )
    parser.add_argument(
        "--anatomy",
        type=Path,
        default=ANATOMY_PATH,
        metavar="FILE",
        help="model that outlines lungs and heart, for --masks-out, --dicom-out, --panel, --report and the column zone "
        "(default: model/anatomy.h5)",
    )
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="of OpenVINO (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.top < 0:
        parser.error(f"argument --top: expected 0 or more, received {args.top}")
    return args


def _columns(text: str) -> tuple[str, ...]:
    """Read --columns."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(COLUMNS)}, received {unknown[0]!r}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Explain every file that can be read; say which could not."""
    args = parse_args(argv)
    if args.panel and importlib.util.find_spec("matplotlib") is None:
        return fail("--panel needs Matplotlib: pip install -r requirements.txt, or leave --panel out.", 2)
    if args.dicom_out and not can_write_dicom():
        return fail(f"--dicom-out: {NOT_INSTALLED}", 2)
    try:
        found = find_pictures(args.paths, exclude=[args.out, *filter(None, [args.dicom_out])])
    except FileNotFoundError:  # relative paths have no meaning there
        return fail("The current folder has been deleted. Change to another one (cd) and start again.", 2)
    for problem in found.problems:
        _say(problem, sys.stderr)
    if found.left_out:
        _say(found.describe_left_out())
    if not found.files:
        return 2
    try:
        load_keras()  # which takes seconds; --help and wrong paths do without
        from cxr.inference.predictor import Predictor

        predictor = Predictor(args.model_path, precision=args.precision, side_by_side=len(found.files) >= MANY_FILES)
        wanted = _positions(args.finding, predictor.info) if args.finding else None
        outline_model = _outline_model(args)
    except (BackendError, FindingNameError, ModelFileError) as error:
        return fail(error, 2)
    except MemoryShortError as error:
        return fail(error, 3)
    try:
        num_failed = _explain_files(predictor, outline_model, found.files, wanted, args)
    except OSError as error:  # of the output: what cannot be read is a line, and the others go on
        where = error.filename or args.out
        return fail(f"{where}: cannot be written: {error.strerror}. Choose another place for it.", 3)
    num_files = len(found.files)
    _say(f"{num_files - num_failed} of {num_files} files -> {args.out / 'predictions.csv'}")
    return 1 if num_failed or found.problems else 0


def _outline_model(args: argparse.Namespace) -> "OutlineModel | None":
    """Load the model that outlines lungs and heart, where an output shows them.

    Raises: ModelFileError where --masks-out needs it; else a line, and the answers go without outlines.
    """
    if not (args.masks_out or args.dicom_out or args.panel or args.report or "zone" in args.columns):
        return None
    from cxr.anatomy.outline_model import OutlineModel, outline_model_at

    if args.masks_out:
        return OutlineModel(args.anatomy)
    return outline_model_at(args.anatomy, partial(_say, stream=sys.stderr))


def _positions(names: Sequence[str], info: ModelInfo) -> list[int]:
    keys = [name_key(finding) for finding in info.findings]
    unknown = [name for name in names if name_key(name) not in keys]
    if unknown:
        raise FindingNameError(f"--finding {unknown[0]!r}: expected one of {', '.join(info.findings)}.")
    return [keys.index(name_key(name)) for name in names]


def _explain_files(
    predictor: "Predictor",
    outline_model: "OutlineModel | None",
    files: list[Path],
    wanted: list[int] | None,
    args: argparse.Namespace,
) -> int:
    """Write the table and every other output; return the number of files that could not be read."""
    info, num_failed = predictor.info, 0
    progress = Progress("files", len(files))
    named, decoder = dict(zip(relative_names(files), files, strict=True)), FileDecoder()

    def answer_file(file: Path) -> tuple[DecodedPicture, Explanation]:
        picture = decoder.decode(read_file(file))
        return picture, explain(predictor, picture.radiograph, outline_model=outline_model)

    header, job = table_header(info.findings, args.columns), _job(predictor, outline_model, args, named)
    with sole_use(args.out), AnswerTable(args.out, header, job, named) as table, ExitStack() as open_writers:
        open_writers.enter_context(decoder)
        writers = [open_writers.enter_context(writer) for writer in _writers(info, wanted, table, named, args)]
        left = {name: file for name, file in named.items() if name not in table.finished}
        if table.remark:
            _say(table.remark)
        if table.finished:
            _say(f"Going on with an unfinished job: {len(table.finished)} of {len(files)} files are done.")
        results = work_ahead(list(left.values()), answer_file)
        for (name, file), (position, result) in zip(left.items(), results, strict=True):
            progress.show(len(table.finished) + position)
            if isinstance(result, Exception):
                num_failed += 1
                _say(f"{visible(str(file))}: {getattr(result, 'strerror', None) or result}", sys.stderr)
                continue
            picture, answer = result
            _say(f"{visible(str(file))}: {[info.findings[k] for k in above_threshold(info, answer)]}")
            for notice in (*picture.notices, *([INPUT_CHECK_WARNING] if answer.fails_input_check else [])):
                _say(f"    {notice}")
            for writer in writers:
                for line in writer.add(name, file, picture, answer):
                    _say(f"    {line}")
            # Last: a row says that the other outputs are there too.
            table.add(table_row(name, info, answer, picture.notices, args.columns))
    progress.show(len(files))
    return num_failed


def _job(
    predictor: "Predictor", outline_model: "OutlineModel | None", args: argparse.Namespace, named: dict[str, Path]
) -> dict[str, object]:
    """Collect what the answers and the outputs of a run depend on, beside the files."""
    name, file = next(iter(named.items()))
    outputs = {option: getattr(args, option) for option in OUTPUT_OPTIONS}
    for option in ("boxes_out", "dicom_out", "masks_out"):
        outputs[option] = (path := getattr(args, option)) and os.path.abspath(path)  # noqa: PTH100
    outputs["anatomy"] = outline_model and outline_model.info.digest
    folder = visible(Path(os.path.abspath(file)).as_posix()).removesuffix(name)  # noqa: PTH100
    return {"model": predictor.info.digest, "engine": predictor.engine, "folder": folder, **outputs}


def _writers(
    info: ModelInfo, wanted: list[int] | None, table: AnswerTable, named: Mapping[str, Path], args: argparse.Namespace
) -> list[AnswerWriter]:
    """Return a writer for each output that was asked for beside the table, in the order of their lines."""

    def choose(answer: Explanation) -> list[int]:
        ranking = rank_findings(answer.probabilities)
        return wanted if wanted is not None else ranking if args.all else ranking[: args.top]

    outputs = OutputNames(args.out, table.marks)
    writers: list[AnswerWriter] = [OverlayFiles(outputs, info, choose, own_peak=args.own_peak)]
    if args.panel:
        # Matplotlib takes a second to import, and nothing else here needs it.
        from cxr.outputs.panel_files import PanelFiles

        writers.append(PanelFiles(outputs, info, choose, own_peak=args.own_peak))
    if args.report:
        writers.append(DraftFiles(outputs, info, chosen=args.chosen_thresholds))
    if args.boxes_out:
        in_boxes = choose if wanted is not None or args.all or args.top else partial(above_threshold, info)
        replaced = named.keys() - table.marks.keys()
        writers.append(BoxFile(args.boxes_out, info, in_boxes, finished=table.finished, replaced=replaced))
    if args.dicom_out:
        writers.append(DicomFiles(OutputNames(args.dicom_out, table.marks), info))
    if args.masks_out:
        writers.append(MaskFiles(OutputNames(args.masks_out, table.marks)))
    return writers


def _say(line: str, stream: TextIO | None = None) -> None:
    """Print a line above the progress line."""
    if sys.stderr is not None and sys.stderr.isatty():
        say("\r\033[K", sys.stderr, end="")
    say(line, stream)


if __name__ == "__main__":
    show_what_cannot_be_encoded()
    sys.exit(main())
