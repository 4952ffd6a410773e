"""Every sentence of the report draft, and the names of its numbers.

Another language is a translation of this file and of nothing else. It keeps three rules: a sentence says no more than
the numbers that it is given; it speaks of probabilities, thresholds and zones, never of a disease that is there or not;
every number goes through cxr.metrics.number_text, or through functions of its own where a language writes numbers
otherwise. What is said of which answer is decided in cxr.inference.report_draft.
"""

from collections.abc import Mapping, Sequence

from cxr.metrics.number_text import exact, fixed, num_decimals, percent, probability, probability_beside, threshold
from cxr.network.model_info import DISCLAIMER

OPENING = f"{DISCLAIMER} Draft of a report, written by a program from a model's numbers; nobody has checked it."
CLOSING = f"End of the draft. It is no diagnosis. {DISCLAIMER}"
TECHNIQUE, COMPARISON, FINDINGS, IMPRESSION, LIMITS = "Technique", "Comparison", "Findings", "Impression", "Limits"


def listing(parts: Sequence[str]) -> str:
    """Join parts as a sentence does: A, B and C."""
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


# What numbers are called in the list that a sentence comes from

WIDTH, HEIGHT, MODEL_SIDE = "width of the picture, pixels", "height of the picture, pixels", "side of the model's input"
NUM_PICTURES, NUM_EARLIER = "pictures that the draft is about", "earlier pictures that were given"
NUM_FINDINGS, NUM_REACHED, NUM_MORE = "findings of the model", "findings that reach theirs", "further findings"
NUM_OTHERS = "findings that would reach the threshold of the other rule"
COMMON_THRESHOLD, LOWEST_THRESHOLD, HIGHEST_THRESHOLD = "threshold for all", "lowest threshold", "highest threshold"
INPUT_CHECK, INPUT_CHECK_LIMIT, NUM_CHECKED = "input check", "limit of the input check", "values of the input check"
NUM_NOTICES, NUM_VIEW_NOTICES = "notices about the picture", "notices that it is no frontal view of a chest"
NUM_HEATMAPS, NUM_OUTLINED = "heatmaps that could be computed", "organs outlined credibly"
CARDIOTHORACIC = "cardiothoracic ratio"
NUM_TEST_SETS, NUM_TEST_PICTURES = "test sets that are like this picture", "radiographs of the test set"
RESULTS = ("AUROC", "sensitivity", "specificity")
ALL_FINDINGS = "average of all findings"
NUM_ROWS, NUM_COLUMNS = "rows of a heatmap", "columns of a heatmap"
IN_BOX, NUM_BOXED, RANDOM_IN_BOX = "peaks inside a box", "findings with drawn boxes", "random places inside a box"


def probability_of(finding: str) -> str:
    return f"probability of {finding}"


def calibrated_probability_of(finding: str) -> str:
    return f"calibrated probability of {finding}"


def threshold_of(finding: str) -> str:
    return f"threshold of {finding}"


def peak_of(finding: str) -> str:
    return f"largest value of {finding}'s heatmap, in logits"


def share_in(finding: str, place: str) -> str:
    return f"share of {finding}'s heat: {place}"


def share_inside(finding: str) -> str:
    return f"share of {finding}'s heat inside lungs and heart"


def share_of_picture(organ: str) -> str:
    return f"share of the picture: {organ}"


def result_of(kind: str, whose: str) -> str:
    return f"{kind}, {whose}"


# Technique


def picture(width: int, height: int, model_side: int) -> str:
    return (
        f"One picture of {width} by {height} pixels, resized as a whole to {model_side} by {model_side} for the model."
    )


def rule_for_all(limit: float, num_findings: int) -> str:
    findings = "the model's one finding" if num_findings == 1 else f"all {num_findings} findings"
    return f"Threshold in force: {threshold(limit)} for {findings}."


def rule_per_finding(lowest: float, highest: float, without: Sequence[str], num_more: int, common: float) -> str:
    """Say that thresholds were chosen.

    Args:
        without: findings for which none could be, which go by `common`; `num_more` further ones are not named.
    """
    low, high = probability_beside(lowest, highest)
    which = f"{high} for the one finding" if lowest == highest else f"from {low} to {high}"
    text = f"Thresholds in force: chosen for each finding on the validation split, {which}."
    if without:
        text += f" None could be chosen for {_and_more(without, num_more)}: {threshold(common)} is in force."
    return text


def input_check(value: float, limit: float) -> str:
    """Say whether the picture is like the training radiographs: whether the value is at most the limit."""
    shown, likeness = fixed(value, num_decimals(value, limit)), "unlike" if value > limit else "like"
    return f"Input check: the picture is {likeness} the training radiographs ({shown}, where {limit:g} is the limit)."


NOT_CHECKED = "Input check: none, since the model file holds no statistics of its training radiographs."


def outlined(shares: Sequence[tuple[str, float]]) -> str:
    parts = listing([f"{organ} {percent(share)}" for organ, share in shares])
    return (
        f"Outlined by a second model: {parts} of the picture. Right and left are the patient's, if the picture is not "
        "mirrored."
    )


def notice(text: str) -> str:
    return f"Notice: {text}"


# Comparison

NO_COMPARISON = "None available."

# Findings

UNLIKE_TRAINING = "the picture is unlike the radiographs that the model was trained on"
NO_FRONTAL_VIEW = "the file is marked as something else than a frontal view of a chest"


def no_statement(reasons: Sequence[str]) -> str:
    return f"No statement is made, because {listing(reasons)}."


def reached(finding: str, value: float, limit: float) -> str:
    shown, at = probability_beside(value, limit)
    return f"{finding}: probability {shown}, at or above its threshold of {at}."


NO_HEATMAP = "Its heatmap could not be computed."
NO_EVIDENCE = "Nothing in the picture raises its score, so that no place can be named."


def one_place(place: str, share: float, inside: float) -> str:
    return f"Peak of its heatmap and the largest part of its heat ({percent(share)}): {place}. {_inside(inside)}"


def two_places(peak: str, largest: str, share: float, inside: float) -> str:
    """Say where peak and largest part of the heat lie, where these are two regions."""
    return f"Peak of its heatmap: {peak}; largest part of its heat ({percent(share)}): {largest}. {_inside(inside)}"


def spread_out(peak: str, share: float, inside: float) -> str:
    """Say that no region holds much of the heat: at most `share`."""
    return (
        f"Peak of its heatmap: {peak}; the heat is spread out, {percent(share)} at most in a region. {_inside(inside)}"
    )


def _inside(share: float) -> str:
    return f"Of the heat, {percent(share)} lies inside lungs and heart."


MUCH_OUTSIDE = (
    "Much of it lies outside: the outlines may leave out a part of a lung under an opacity, or the model may go by a "
    "marker, a border or a device."
)


def region(side: str, zone: str) -> str:
    """Name a region of cxr.heatmaps.places: a side and a zone."""
    if zone == "heart":
        return "over the heart"
    if zone == "outside the lungs":
        return "between the lungs" if side == "middle" else f"outside the lungs on the {side}"
    return f"{side} {zone}"


ORGANS = ("right lung", "left lung", "heart")


def more_reached(num_more: int, finding: str, value: float) -> str:
    """Speak of the findings that reach their thresholds and are not named; `finding` is the most probable of them."""
    others = (
        "One further finding reaches its threshold" if num_more == 1 else f"{num_more} further findings reach theirs"
    )
    return f"{others}; the most probable is {finding} {probability(value)}."


def below(named: Sequence[tuple[str, float, float]], num_more: int, *, one_threshold: bool) -> str:
    """List (finding, probability, threshold) of those below; `num_more`: less probable ones that are not named."""
    parts = []
    for finding, value, limit in named:
        shown, at = probability_beside(value, limit)
        parts.append(f"{finding} {shown}" if one_threshold else f"{finding} {shown} ({at})")
    one = len(named) + num_more == 1
    head = "Below the threshold" if one or one_threshold else "Below their thresholds, which stand in brackets"
    return f"{head}: {_and_more(parts, num_more)}. A low probability does not rule a finding out."


def chosen_would_be_reached(named: Sequence[tuple[str, float, float]], num_more: int) -> str:
    """List (finding, probability, chosen threshold) of those below the common threshold that reach the chosen one."""
    parts = ["{} {} ({})".format(finding, *probability_beside(value, limit)) for finding, value, limit in named]
    return (
        "Thresholds chosen for each finding on the validation split, not in force here, would be reached by "
        f"{_and_more(parts, num_more)}."
    )


def common_would_be_reached(named: Sequence[tuple[str, float, float]], num_more: int) -> str:
    """List (finding, probability, common threshold) of those below the chosen threshold that reach the common one."""
    parts = [f"{finding} {probability_beside(value, limit)[0]}" for finding, value, limit in named]
    limit = threshold(named[0][2])
    return f"A threshold of {limit} for all, not in force here, would be reached by {_and_more(parts, num_more)}."


def _and_more(parts: Sequence[str], num_more: int) -> str:
    return listing([*parts, *([f"{num_more} further ones"] if num_more else [])])


def cardiothoracic(ratio: float) -> str:
    return (
        f"Cardiothoracic ratio by the outlines: {fixed(ratio)}, to be believed only if they fit on the picture. An AP "
        "view or a shallow breath enlarges it."
    )


def no_places(reason: str) -> str:
    return f"{reason} So no places and no cardiothoracic ratio are given."


CUT_OFF = "A lung reaches the side of the picture, which may not show the whole width of the thorax."


def no_ratio(reason: str) -> str:
    return f"{reason} So no cardiothoracic ratio is given."


# Impression


def none_reached(finding: str, value: float, limit: float, num_findings: int, *, chosen: bool) -> str:
    """Say that no finding reaches its threshold; `finding` is the most probable one."""
    shown, at = probability_beside(value, limit)
    if num_findings == 1:
        return f"{finding} {shown} does not reach its threshold of {at}. This rules nothing out."
    rule = "the threshold chosen for it" if chosen else f"the threshold of {at}"
    first = f"the most probable is {finding} {shown}" + (f" ({at})" if chosen else "")
    return f"None of {num_findings} findings reaches {rule}; {first}. This rules nothing out."


def some_reached(
    named: Sequence[tuple[str, float, float, str]], num_reached: int, num_findings: int, *, chosen: bool
) -> str:
    """List (finding, probability, threshold, place or "") of those that reach theirs, as many as are named."""
    parts = [
        f"{finding} {probability_beside(value, limit)[0]}" + (f" ({place})" if place else "")
        for finding, value, limit, place in named
    ]
    one = num_reached == 1
    chosen_rule = "the threshold chosen for it" if one else "the thresholds chosen for them"
    rule = chosen_rule if chosen else f"the threshold of {threshold(named[0][2])}"
    which = "The model's one finding" if num_findings == 1 else f"{num_reached} of {num_findings} findings"
    head = f"{which} {'reaches' if one else 'reach'} {rule}"
    return f"{head}: {_and_more(parts, num_reached - len(named))}. To be judged by a reader, on the picture itself."


def other_rule(num_others: int, limit: float, *, chosen: bool) -> str:
    """Say how many of those below would reach the threshold of the rule that is not in force."""
    if chosen:
        return f"{num_others} of those below would reach a threshold of {threshold(limit)} for all."
    which = "the threshold chosen for it" if num_others == 1 else "the thresholds chosen for them"
    return f"{num_others} of those below would reach {which}."


NO_IMPRESSION = "None, for the reason given under Findings."


def notices_apply(num_notices: int) -> str:
    return f"{'One notice' if num_notices == 1 else f'{num_notices} notices'} under Technique should be read first."


# Limits


def only_these(num_findings: int) -> str:
    findings = "one finding" if num_findings == 1 else f"{num_findings} findings"
    return f"The model answers for {findings} and is not asked about anything else that the picture may show."


ONE_PICTURE = "It sees this one picture: no history of the patient, no other view, no earlier date."


def test_set(description: str, name: str) -> str:
    return description or f"radiographs of the test set “{name}”"


def test_results(num_images: int, radiographs: str, results: Sequence[float | None]) -> str:
    """Write AUROC, sensitivity and specificity, averages of all findings; None where one is undefined."""
    kinds = ("AUROC", "sensitivity at the thresholds in force", "specificity")
    parts = [f"{kind} {_defined(value)}" for kind, value in zip(kinds, results, strict=True)]
    radiographs = f"{exact(num_images)} {radiographs}"
    return f"On the test radiographs most like this one ({radiographs}), on average of all findings: {listing(parts)}."


def results_of_reached(results: Mapping[str, Sequence[float | None]]) -> str:
    """Write the same of single findings, by their names."""
    parts = [
        f"{finding} {_defined(auroc)} ({_defined(sensitivity)}, {_defined(specificity)})"
        for finding, (auroc, sensitivity, specificity) in results.items()
    ]
    return f"There, AUROC (and sensitivity, specificity): {listing(parts)}."


def _defined(value: float | None) -> str:
    return "n/a" if value is None else probability(value)


def places_are_rough(rows: int, columns: int) -> str:
    return (
        f"Places come from heatmaps of {rows} by {columns} cells: they say roughly where the model found its evidence, "
        "not where a finding is."
    )


def pointing(share: float, num_cases: int, at_random: float) -> str:
    """Say of how many findings with boxes, whoever drew how many, the peak lay in one, beside random places."""
    return (
        f"Of {num_cases} findings with boxes drawn around them on those test radiographs, {percent(share)} had the "
        f"peak of their heatmap inside a box; of random places {percent(at_random)}."
    )


NO_TEST_SET = "No test result of the model applies to this picture."
