"""A report draft in the form that readers know: which sentences an answer is given, each with its numbers.

Owns what is said; how it is said is in cxr.inference.sentences. Nothing is said that no number of the answer supports.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.heatmaps.explanation import INPUT_CHECK_LIMIT, Explanation, results_that_apply
from cxr.imaging.dicom import NO_FRONTAL_CHEST
from cxr.inference import sentences as say
from cxr.inference.draft_findings import (
    MAX_NAMED,
    DraftedFinding,
    Number,
    Sentence,
    about_below,
    about_outlines,
    about_ratio,
    about_reached,
    drafted_findings,
    impression,
    shown_name,
)
from cxr.network.model_info import ModelInfo

DEFAULT, CHOSEN = "default", "chosen"  # threshold rules


@dataclass(frozen=True)
class Section:
    title: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class ReportDraft:
    """A draft of a report, and the threshold rule that it goes by."""

    rule: str
    opening: str
    sections: tuple[Section, ...]
    closing: str

    @property
    def text(self) -> str:
        """Return all of it as plain text, the disclaimer at both ends."""
        parts = ["\n".join([one.title.upper(), *(said.text for said in one.sentences)]) for one in self.sections]
        return "\n\n".join([self.opening, *parts, self.closing]) + "\n"


def draft_report(
    info: ModelInfo,
    explanation: Explanation,
    notices: Sequence[str],
    width: int,
    height: int,
    *,
    chosen: bool = False,
) -> ReportDraft:
    """Draft a report on one radiograph of width x height pixels.

    No statement about findings is made where the input check speaks, or the file is marked as no frontal chest.

    Args:
        notices: of the decoder.
        chosen: go by the thresholds chosen on the validation split, where there are any; else by the common one.
    Raises:
        ArithmeticError: a probability is not finite.
    """
    if not np.isfinite(explanation.probabilities).all():
        raise ArithmeticError("Expected finite probabilities from the model.")
    chosen = chosen and any(one is not None for one in info.thresholds)
    ranked = drafted_findings(info, explanation, chosen=chosen)
    reasons = [say.UNLIKE_TRAINING] if explanation.fails_input_check else []
    reasons += [say.NO_FRONTAL_VIEW] if set(notices) & set(NO_FRONTAL_CHEST) else []
    technique = _technique(info, explanation, (width, height), ranked, chosen=chosen)
    if reasons:
        numbers, test_set, reached = _reasons(explanation, notices), None, []
        findings = [Sentence(say.no_statement(reasons), numbers)]
        summed_up = [Sentence(say.NO_IMPRESSION, numbers)]
    else:
        test_set = results_that_apply(info, explanation)
        reached = [one for one in ranked if one.reached][:MAX_NAMED]
        technique += about_outlines(explanation)
        findings = [
            *about_reached(ranked),
            *about_below(ranked, chosen=chosen),
            *about_ratio(explanation, width, height),
        ]
        summed_up = impression(ranked, notices, chosen=chosen)
    technique += [Sentence(say.notice(one), (Number(say.NUM_NOTICES, len(notices)),)) for one in notices]
    sections = {
        say.TECHNIQUE: technique,
        say.COMPARISON: [Sentence(say.NO_COMPARISON, (Number(say.NUM_EARLIER, 0),))],
        say.FINDINGS: findings,
        say.IMPRESSION: summed_up,
        say.LIMITS: _limits(info, explanation, reached, test_set, chosen=chosen),
    }
    return ReportDraft(
        CHOSEN if chosen else DEFAULT,
        say.OPENING,
        tuple(Section(title, tuple(said)) for title, said in sections.items()),
        say.CLOSING,
    )


def _technique(
    info: ModelInfo,
    explanation: Explanation,
    size: tuple[int, int],
    ranked: Sequence[DraftedFinding],
    *,
    chosen: bool,
) -> list[Sentence]:
    """Say what was looked at, by which rule, and what is known of the picture beforehand."""
    numbers = (*map(Number, (say.WIDTH, say.HEIGHT, say.MODEL_SIDE), (*size, info.image_size)),)
    said = [Sentence(say.picture(*size, info.image_size), numbers), _rule(info, ranked, chosen=chosen)]
    if explanation.input_check is None:
        said.append(Sentence(say.NOT_CHECKED, (Number(say.NUM_CHECKED, 0),)))
    else:
        said.append(Sentence(say.input_check(explanation.input_check, INPUT_CHECK_LIMIT), _input_check(explanation)))
    return said


def _rule(info: ModelInfo, ranked: Sequence[DraftedFinding], *, chosen: bool) -> Sentence:
    """Say which threshold rule is in force."""
    num_findings = Number(say.NUM_FINDINGS, len(ranked))
    if not chosen:
        text = say.rule_for_all(info.threshold, len(ranked))
        return Sentence(text, (Number(say.COMMON_THRESHOLD, info.threshold), num_findings))
    found = [one for one in info.thresholds if one is not None]
    without = [shown_name(name) for name, one in zip(info.findings, info.thresholds, strict=True) if one is None]
    numbers = (Number(say.LOWEST_THRESHOLD, min(found)), Number(say.HIGHEST_THRESHOLD, max(found)))
    text = say.rule_per_finding(min(found), max(found), without[:MAX_NAMED], len(without[MAX_NAMED:]), info.threshold)
    return Sentence(text, (*numbers, Number(say.COMMON_THRESHOLD, info.threshold), num_findings))


def _input_check(explanation: Explanation) -> tuple[Number, ...]:
    return (Number(say.INPUT_CHECK, explanation.input_check), Number(say.INPUT_CHECK_LIMIT, INPUT_CHECK_LIMIT))


def _reasons(explanation: Explanation, notices: Sequence[str]) -> tuple[Number, ...]:
    """Return the numbers for which no statement is made."""
    numbers = _input_check(explanation) if explanation.fails_input_check else ()
    num_marked = sum(one in NO_FRONTAL_CHEST for one in notices)
    return (*numbers, Number(say.NUM_VIEW_NOTICES, num_marked)) if num_marked else numbers


def _limits(
    info: ModelInfo, explanation: Explanation, reached: Sequence[DraftedFinding], test_set: str | None, *, chosen: bool
) -> list[Sentence]:
    """Say what the model cannot judge, and how good it was on radiographs like this one.

    Args:
        reached: the findings that the draft says reach their thresholds.
    """
    num_findings = len(info.findings)
    said = [
        Sentence(say.only_these(num_findings), (Number(say.NUM_FINDINGS, num_findings),)),
        Sentence(say.ONE_PICTURE, (Number(say.NUM_PICTURES, 1),)),
    ]
    results = {} if test_set is None else info.test_sets[test_set]
    if test_set is None:
        said.append(Sentence(say.NO_TEST_SET, (Number(say.NUM_TEST_SETS, 0),)))
    else:
        said += _test_results(results, test_set, reached, chosen=chosen)
    if any(one.place for one in reached):
        rows, columns = explanation.heatmaps.shape[1:]
        numbers = Number(say.NUM_ROWS, rows), Number(say.NUM_COLUMNS, columns)
        said += [Sentence(say.places_are_rough(rows, columns), numbers), *_pointing(results)]
    return said


def _test_results(
    results: dict[str, object], test_set: str, reached: Sequence[DraftedFinding], *, chosen: bool
) -> list[Sentence]:
    """Say how good the model was on a test set: over all findings, and for those that reach their thresholds."""
    num_images = _number(results.get("num_images"))
    if num_images is None:
        return []
    names = ("auroc", *(f"{kind}_chosen" if chosen else kind for kind in ("sensitivity", "specificity")))
    kinds = [results[name] if isinstance(results.get(name), dict) else {} for name in names]
    average = [_mean(values) for values in kinds]
    radiographs = say.test_set(str(results.get("description") or ""), test_set)
    text = say.test_results(int(num_images), radiographs, average)
    numbers = (Number(say.NUM_TEST_PICTURES, int(num_images)), *_results(say.ALL_FINDINGS, average))
    said = [Sentence(text, numbers)]
    found = {one.name: [_number(values.get(one.column)) for values in kinds] for one in reached}
    if found:
        of_each = [number for name, values in found.items() for number in _results(name, values)]
        # One number at least: where all are undefined, how many findings it is said of.
        said.append(Sentence(say.results_of_reached(found), (Number(say.NUM_REACHED, len(found)), *of_each)))
    return said


def _results(whose: str, values: Sequence[float | None]) -> list[Number]:
    """Name the results that are defined."""
    named = zip(say.RESULTS, values, strict=True)
    return [Number(say.result_of(kind, whose), value) for kind, value in named if value is not None]


def _pointing(results: dict[str, object]) -> list[Sentence]:
    """Say how often a heatmap's peak lay in a reader's box, where that was measured."""
    pointing = results.get("pointing")
    measured = pointing if isinstance(pointing, dict) else {}
    found = [_number(measured.get(name)) for name in ("in_box", "num_cases", "random_in_box")]
    if None in found:
        return []
    share, num_cases, at_random = found[0], int(found[1]), found[2]
    names = (say.IN_BOX, say.NUM_BOXED, say.RANDOM_IN_BOX)
    numbers = map(Number, names, (share, num_cases, at_random))
    return [Sentence(say.pointing(share, num_cases, at_random), tuple(numbers))]


def _mean(values: dict[str, object]) -> float | None:
    """Return the mean over the findings for which a result is defined; None where it is for none."""
    defined = [number for number in map(_number, values.values()) if number is not None]
    return float(np.mean(defined)) if defined else None


def _number(value: object) -> float | None:
    """Return a value of the model file's records where it is a number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
