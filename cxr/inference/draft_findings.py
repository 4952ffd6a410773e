"""What the report draft says of findings: which reach their thresholds, where their heat lies, and the sum of it.

Owns the records that a draft is made of, and its sections Findings and Impression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG
from cxr.data.columns import display_name
from cxr.heatmaps.explanation import Explanation, rank_findings
from cxr.heatmaps.places import Place, Region
from cxr.inference import sentences as say
from cxr.network.model_info import ModelInfo

MAX_NAMED = 14  # findings that one sentence names


@dataclass(frozen=True)
class Number:
    """A number that a sentence comes from, and what it is."""

    name: str
    value: float


@dataclass(frozen=True)
class Sentence:
    text: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class DraftedFinding:
    """What the draft needs of one finding.

    Attributes:
        column: its name in the model's records; `name` is how people read it.
        other: its threshold by the rule that is not in force.
    """

    column: str
    name: str
    probability: float
    calibrated: float | None
    threshold: float
    reached: bool
    other: float
    reaches_other: bool
    peak: float | None
    place: Place | None

    @property
    def numbers(self) -> tuple[Number, ...]:
        found = (Number(say.probability_of(self.name), self.probability),)
        if self.calibrated is not None:
            found += (Number(say.calibrated_probability_of(self.name), self.calibrated),)
        return (*found, Number(say.threshold_of(self.name), self.threshold))


def drafted_findings(info: ModelInfo, explanation: Explanation, *, chosen: bool) -> list[DraftedFinding]:
    """Collect the findings, most probable first."""
    own = info.thresholds or (None,) * len(info.findings)
    maps, places = explanation.heatmaps, explanation.places
    found = []
    for k in rank_findings(explanation.probabilities):
        probability = explanation.probabilities[k]
        # In the precision in which it is decided, so that the words cannot contradict the decision.
        common, best = (
            float(np.float32(one)) for one in (info.threshold, info.threshold if own[k] is None else own[k])
        )
        limit, other = (best, common) if chosen else (common, best)
        found.append(
            DraftedFinding(
                column=info.findings[k],
                name=shown_name(info.findings[k]),
                probability=float(probability),
                calibrated=None if explanation.calibrated is None else float(explanation.calibrated[k]),
                threshold=limit,
                reached=bool(probability >= limit),
                other=other,
                reaches_other=bool(probability >= other),
                peak=None if maps is None else float(maps[k].max()),
                place=places[k],
            )
        )
    return found


def shown_name(name: str) -> str:
    """Return a finding's name as people read it, on one line."""
    return " ".join(display_name(name).split())


def about_reached(ranked: Sequence[DraftedFinding]) -> list[Sentence]:
    """Speak of each finding that reaches its threshold, and where its heat lies."""
    above = [one for one in ranked if one.reached]
    said = []
    for one in above[:MAX_NAMED]:
        words, numbers = _place(one)
        text = " ".join([say.reached(one.name, one.probability, one.threshold), *words])
        said.append(Sentence(text, (*one.numbers, *numbers)))
    if above[MAX_NAMED:]:
        first = above[MAX_NAMED]
        text = say.more_reached(len(above) - MAX_NAMED, first.name, first.probability)
        said.append(Sentence(text, (Number(say.NUM_MORE, len(above) - MAX_NAMED), *first.numbers)))
    return said


def _place(one: DraftedFinding) -> tuple[list[str], list[Number]]:
    """Say where the heat of a finding lies, as far as it is known."""
    if one.peak is None:
        return [say.NO_HEATMAP], [Number(say.NUM_HEATMAPS, 0)]
    numbers = [Number(say.peak_of(one.name), one.peak)]
    if one.peak == 0:
        return [say.NO_EVIDENCE], numbers
    if one.place is None:
        return [], numbers
    place = one.place
    largest, inside = _words(place.largest), place.share_inside
    if place.spread_out:
        words = [say.spread_out(_words(place.peak), place.largest_share, inside)]
    elif place.peak == place.largest:
        words = [say.one_place(largest, place.largest_share, inside)]
    else:
        words = [say.two_places(_words(place.peak), largest, place.largest_share, inside)]
    words += [say.MUCH_OUTSIDE] if place.much_outside else []
    numbers.append(Number(say.share_in(one.name, largest), place.largest_share))
    return words, [*numbers, Number(say.share_inside(one.name), inside)]


def _words(region: Region) -> str:
    return say.region(region.side, region.zone)


def about_below(ranked: Sequence[DraftedFinding], *, chosen: bool) -> list[Sentence]:
    """Group the findings below their thresholds, and name those for which the other rule would decide otherwise."""
    under = [one for one in ranked if not one.reached]
    if not under:
        return []
    named = [(one.name, one.probability, one.threshold) for one in under[:MAX_NAMED]]
    text = say.below(named, len(under) - len(named), one_threshold=not chosen)
    said = [Sentence(text, _grouped(under))]
    otherwise = [one for one in under if one.reaches_other]
    if otherwise:
        named = [(one.name, one.probability, one.other) for one in otherwise[:MAX_NAMED]]
        words = say.common_would_be_reached if chosen else say.chosen_would_be_reached
        said.append(Sentence(words(named, len(otherwise) - len(named)), _grouped(otherwise, other=True)))
    return said


def _grouped(group: Sequence[DraftedFinding], *, other: bool = False) -> tuple[Number, ...]:
    """Return the numbers of the findings that a sentence names, and how many more it speaks of."""
    numbers = [
        Number(name, value)
        for one in group[:MAX_NAMED]
        for name, value in (
            (say.probability_of(one.name), one.probability),
            (say.threshold_of(one.name), one.other if other else one.threshold),
        )
    ]
    return (*numbers, *([Number(say.NUM_MORE, len(group) - MAX_NAMED)] if group[MAX_NAMED:] else []))


def about_outlines(explanation: Explanation) -> list[Sentence]:
    """State what was outlined; nothing where no outlines were asked for, or they are not credible."""
    outlines = explanation.outlines
    if outlines is None or not outlines.lungs_credible:
        return []
    masks = [outlines.labels == RIGHT_LUNG, outlines.labels == LEFT_LUNG]
    masks += [outlines.heart] if outlines.heart_credible else []
    shares = [(organ, float(mask.mean())) for organ, mask in zip(say.ORGANS, masks, strict=False)]
    return [Sentence(say.outlined(shares), tuple(Number(say.share_of_picture(one), share) for one, share in shares))]


def about_ratio(explanation: Explanation, width: int, height: int) -> list[Sentence]:
    """State the cardiothoracic ratio, or why there is none; nothing where no outlines were asked for."""
    outlines = explanation.outlines
    if outlines is None:
        return []
    if not (outlines.lungs_credible and outlines.heart_credible):
        words = say.no_ratio if outlines.lungs_credible else say.no_places
        num_outlined = 2 if outlines.lungs_credible else 0
        return [Sentence(words(outlines.reason or ""), (Number(say.NUM_OUTLINED, num_outlined),))]
    found = cardiothoracic_ratio(outlines, width, height)
    if found is None:
        return [Sentence(say.no_ratio(say.CUT_OFF), (Number(say.NUM_OUTLINED, 3),))]
    return [Sentence(say.cardiothoracic(found.ratio), (Number(say.CARDIOTHORACIC, found.ratio),))]


def impression(ranked: Sequence[DraftedFinding], notices: Sequence[str], *, chosen: bool) -> list[Sentence]:
    """Sum up which findings reach their thresholds."""
    above, num_findings = [one for one in ranked if one.reached], Number(say.NUM_FINDINGS, len(ranked))
    if above:
        named = [(one.name, one.probability, one.threshold, _short_place(one)) for one in above[:MAX_NAMED]]
        text = say.some_reached(named, len(above), len(ranked), chosen=chosen)
        said = [Sentence(text, (Number(say.NUM_REACHED, len(above)), num_findings, *_grouped(above)))]
    else:
        first = ranked[0]
        text = say.none_reached(first.name, first.probability, first.threshold, len(ranked), chosen=chosen)
        said = [Sentence(text, (Number(say.NUM_REACHED, 0), num_findings, *first.numbers))]
    others = [one for one in ranked if one.reaches_other and not one.reached]
    if others:
        text = say.other_rule(len(others), others[0].other, chosen=chosen)
        said.append(Sentence(text, (Number(say.NUM_OTHERS, len(others)), *_grouped(others, other=True))))
    if notices:
        said.append(Sentence(say.notices_apply(len(notices)), (Number(say.NUM_NOTICES, len(notices)),)))
    return said


def _short_place(one: DraftedFinding) -> str:
    """Name the region of a finding's heat where it is definite; else ""."""
    return _words(one.place.largest) if one.place and one.place.definite else ""
