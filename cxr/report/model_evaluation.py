"""Any model file on any labelled radiographs, without training: evaluation, refit to them, comparison with another.

Owns the matching of findings by name and the story from checked tables to the report; what is fitted is
validation_fit's work, the numbers are the metrics'.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cxr.anatomy.outline_model import outline_model_at
from cxr.data.boxes import Box, with_file_names
from cxr.data.cache import CachedSplit, cache_split
from cxr.data.checks import DataCheck, check_tables
from cxr.data.columns import name_key
from cxr.data.labels import Split, read_views
from cxr.data.problems import LabelError
from cxr.heatmaps.gradcam import heatmaps
from cxr.metrics.per_finding import DEFAULT_THRESHOLD
from cxr.network.model_file import keep_previous, load_model, save_model
from cxr.network.model_info import ModelInfo, hash_image_names
from cxr.report.comparison import Comparison, compare, comparison_table
from cxr.report.gallery import make_gallery
from cxr.report.report_files import write_report
from cxr.report.report_page import RunRecord, rule_of
from cxr.report.summary import localisation_table, terminal_table
from cxr.report.test_evaluation import TestResults, evaluate_test, summarise, summarise_set
from cxr.system.atomic_files import free_folder
from cxr.system.terminal import say
from cxr.training.data_sets import SAMPLE_DATA, common_folder, is_sample
from cxr.training.validation_fit import library_versions, refit_model

NUM_EXAMPLES = 3  # image names in a message


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model file in memory."""

    path: Path
    network: keras.Model
    info: ModelInfo


@dataclass(frozen=True, eq=False)
class EvaluationRequest:
    """What is asked for.

    Attributes:
        tables: "test", and "val" and "train" where the model is to be fitted to radiographs like these, to their CSV.
        findings: those wanted; None for all that model and tables share.
        out: where the refitted copy goes; None without a "val" table.
        boxes_of: the boxes that belong to a test split.
        check_options: how the tables are read, as `check_tables` takes it.
        check_only: stop after the check.
    """

    model: Path
    against: Path | None
    tables: Mapping[str, Path]
    image_dir: Path
    findings: Sequence[str] | None
    boxes_of: Callable[[Split], Sequence[Box]]
    out: Path | None
    check_options: Mapping[str, Any]
    check_only: bool
    seed: int
    cache_dir: Path
    report_dir: Path
    anatomy: Path


def evaluate_model(request: EvaluationRequest) -> int:
    """Run the story from the model file to the report; return the exit code.

    Raises:
        ModelFileError, LabelError, ImageError: a file that cannot be used.
        OSError: one that cannot be read or written.
    """
    models = [LoadedModel(path, *load_model(path)) for path in (request.model, request.against) if path is not None]
    findings = shared_findings(request, models)
    if findings is None:  # a table that cannot be read at all: its check says why
        data = check_tables(request.tables, None, **request.check_options)
    else:
        data = check_tables(
            request.tables, request.image_dir, expected=findings, findings=findings, **request.check_options
        )
    say(data.as_text())
    if data.faults or request.check_only:
        return data.exit_code
    _evaluate(request, models, data)
    return 0


def shared_findings(request: EvaluationRequest, models: Sequence[LoadedModel]) -> tuple[str, ...] | None:
    """Return the findings that every model and every table has, in the first model's order and words.

    Says which are left out because only one side has them. None where a table has no header to speak of.

    Raises:
        LabelError: there is none, or a model lacks one that was asked for.
    """
    plain = check_tables(request.tables, None, **{**request.check_options, "where": None})
    columns = {name: part.findings for name, part in plain.parts.items()}
    if set(columns) != set(request.tables):
        return None
    sides = {model.path.name: model.info.findings for model in models}
    sides |= {str(request.tables[name]): found for name, found in columns.items()}
    keys = [set(map(name_key, side)) for side in sides.values()]
    wanted = set.intersection(*keys)
    if request.findings is not None:
        asked = set(map(name_key, request.findings))
        missing = [name for name in request.findings if name_key(name) not in wanted]
        if missing:
            raise LabelError(f"--findings {missing[0]}: not in all of {', '.join(sides)}.")
        wanted &= asked
    elif not wanted:
        known = "; ".join(f"{side}: {', '.join(names)}" for side, names in sides.items())
        raise LabelError(f"No finding is in all of these. Rename the columns, or take another model. {known}.")
    else:
        for side, names in sides.items():
            left_out = [name for name in names if name_key(name) not in wanted]
            if left_out:
                say(f"Left out, for only {side} has them: {', '.join(left_out)}.")
    return tuple(name for name in models[0].info.findings if name_key(name) in wanted)


def _evaluate(request: EvaluationRequest, models: Sequence[LoadedModel], data: DataCheck) -> None:
    splits = data.splits
    model, findings = models[0], splits["test"].findings
    cached = {name: _cached(request, split, model.info) for name, split in splits.items()}
    info = model.info
    if "val" in cached:
        info = refit_model(model.network, info, cached["val"], cached.get("train"))
    network, restricted_info = restricted(model.network, info, findings)
    boxes = with_file_names(request.boxes_of(splits["test"]), data.found["test"])
    outline_model = outline_model_at(request.anatomy, say) if boxes else None
    results = evaluate_test(network, restricted_info, cached["test"], boxes, request.seed, outline_model)
    if request.out is not None:
        views = read_views(request.tables["test"], data.found["test"])
        summary = summarise_set(results, info, "", views, request.seed)
        _save(request, model, info, results, {common_folder(splits["test"]) or "test": summary})
    comparison = None
    if len(models) > 1:
        other = models[1]
        other_network, other_info = restricted(other.network, other.info, findings)
        test = _cached(request, splits["test"], other.info)
        other_results = evaluate_test(other_network, other_info, test, (), request.seed)
        names = [one.path.name for one in models]
        if names[0] == names[1]:
            names = [str(one.path) for one in models]
        comparison = compare(results.predictions, other_results.predictions, *names, seed=request.seed)
    _report(request, model, info, results, list(splits.values()), comparison)


def _cached(request: EvaluationRequest, split: Split, info: ModelInfo) -> CachedSplit:
    return cache_split(split, request.image_dir, info.image_size, request.cache_dir)


def restricted(network: keras.Model, info: ModelInfo, findings: Sequence[str]) -> tuple[keras.Model, ModelInfo]:
    """Return the network and its ModelInfo with some of their findings, which are matched by name.

    Findings without a threshold get the default one.
    """
    keys = [name_key(name) for name in info.findings]
    columns = [keys.index(name_key(name)) for name in findings]
    chosen = info.thresholds or (None,) * len(keys)
    thresholds = [DEFAULT_THRESHOLD if chosen[column] is None else chosen[column] for column in columns]
    calibration = dict(info.calibration)
    for name in ("slopes", "biases"):
        if calibration:
            calibration[name] = [info.calibration[name][column] for column in columns]
    info = dataclasses.replace(info, findings=tuple(findings), thresholds=tuple(thresholds), calibration=calibration)
    if columns == list(range(len(keys))):
        return network, info
    kernel, bias = network.get_layer("logits").get_weights()
    head = keras.layers.Dense(len(columns), name="logits", dtype="float32")
    logits = head(network.get_layer("pooled").output)
    head.set_weights([kernel[:, columns], bias[columns]])
    probabilities = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
    return keras.Model(network.input, probabilities), info


def _save(
    request: EvaluationRequest,
    model: LoadedModel,
    info: ModelInfo,
    results: TestResults,
    test_sets: dict[str, dict[str, Any]],
) -> None:
    """Write the refitted copy of the model, with what was found on the test radiographs."""
    info = dataclasses.replace(info, test_metrics=summarise(results.evaluation), test_sets=test_sets)
    kept = keep_previous(request.out, info.data_fingerprint)
    save_model(model.network, info, request.out)
    if kept:
        say(f"{request.out} held another model; it is kept as {kept.name}.")
    say(
        f"Saved {request.out}: the network of {model.path.name}, with thresholds, calibration and input check refitted."
    )


def _report(
    request: EvaluationRequest,
    model: LoadedModel,
    info: ModelInfo,
    results: TestResults,
    splits: Sequence[Split],
    comparison: Comparison | None,
) -> None:
    """Write the report, and say on the terminal what is in it."""
    now, notes = datetime.now(), _notes(model, info, splits, request)
    folder = free_folder(request.report_dir / now.strftime("%Y-%m-%d_%H%M%S"))
    record = RunRecord(
        name=folder.name,
        created=now.astimezone().isoformat(timespec="seconds"),
        splits=splits,
        settings={
            "evaluated model": model.path.name,
            "digest": model.info.digest,
            "image_size": info.image_size,
            "weights_origin": info.weights_origin,
        },
        versions=library_versions(),
        note=" ".join(notes),
        comparison=comparison,
        threshold_rule=rule_of(info),
    )
    predictions = results.predictions
    maps = heatmaps(results.case_features, results.head_kernel)
    gallery = make_gallery(results.cases, maps, predictions, request.image_dir, info.threshold, results.case_contents)
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
    for note in notes:
        say(note)
    if comparison is not None:
        say(comparison_table(comparison))
    say(f"Report: {page}")


def _notes(model: LoadedModel, info: ModelInfo, splits: Sequence[Split], request: EvaluationRequest) -> list[str]:
    """Say what a reader of the numbers must know of where the model comes from."""
    notes = [f"A model file was evaluated, nothing was trained: {model.path.name}."]
    test = next(split for split in splits if split.name == "test")
    if model.info.trained_names is None:
        notes.append("The file does not list its training images; it is not known whether these are among them.")
    else:
        seen = np.flatnonzero(np.isin(hash_image_names(test.images), model.info.trained_names))
        if len(seen):
            examples = ", ".join(test.images[row] for row in seen[:NUM_EXAMPLES])
            notes.append(
                f"{len(seen)} of {len(test.images)} images have names that the model was trained with ({examples}"
                f"{', ...' * (len(seen) > NUM_EXAMPLES)}): if they are the same, the scores are too good."
            )
    if is_sample(test, request.image_dir):
        notes.append(f"The test radiographs are {SAMPLE_DATA}.")
    if info.published:
        notes.append(f"Its source states {info.published['figure']} ({info.published['source']}).")
    if not all(split.patients_known for split in splits):
        notes.append("The tables name no patients: each image counts as one, and intervals are too narrow.")
    if request.out is not None:
        notes.append("Thresholds, calibration and input check were fitted to the validation split given.")
    return notes
