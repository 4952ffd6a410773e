"""Report drafts: a table of cases with their whole text, and that every number in a text is one of the answer's."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import HEART, LEFT_LUNG, RIGHT_LUNG, Outlines
from cxr.heatmaps.explanation import Explanation
from cxr.heatmaps.places import places_of
from cxr.imaging.dicom import LATERAL_VIEW
from cxr.inference.draft_findings import MAX_NAMED
from cxr.inference.report_draft import ReportDraft, draft_report
from cxr.network.input_check import Source
from cxr.network.model_info import DISCLAIMER, ModelInfo

EXPECTED = Path(__file__).parent / "report_drafts"
FINDINGS = ("Effusion", "Mass", "Pleural_Thickening", "Cardiomegaly")
TEST_SET = {
    "description": "radiographs of a hospital",
    "num_images": 1234,
    "pointing": {"num_cases": 114, "in_box": 0.6053, "random_in_box": 0.096},
    "auroc": {"Effusion": 0.8123, "Mass": 0.7012, "Pleural_Thickening": None, "Cardiomegaly": 0.6887},
    "sensitivity": {"Effusion": 0.0312, "Mass": 0.2, "Pleural_Thickening": None, "Cardiomegaly": 0.4512},
    "specificity": {"Effusion": 0.9989, "Mass": 0.9612, "Pleural_Thickening": None, "Cardiomegaly": 0.8912},
    "sensitivity_chosen": {"Effusion": 0.7212, "Mass": 0.3, "Pleural_Thickening": None, "Cardiomegaly": 0.51},
    "specificity_chosen": {"Effusion": 0.8389, "Mass": 0.91, "Pleural_Thickening": None, "Cardiomegaly": 0.85},
}
KINDS = ("auroc", "sensitivity", "specificity", "sensitivity_chosen", "specificity_chosen")
INFO = ModelInfo(
    FINDINGS,
    224,
    thresholds=(0.1712, 0.7712, None, 0.2421),
    sources=(Source("ward", "radiographs of a hospital", 10, 9, (0.0,), (1.0,), 1.0),),
    test_sets={"ward": TEST_SET},
)


def outlines(*, lungs: bool = True, heart: bool = True) -> Outlines:
    """Lungs of 24 rows each, the heart between them and over the left one: widths 20 of 40 cells."""
    labels, whole_heart = np.zeros((48, 64), np.uint8), np.zeros((48, 64), bool)
    whole_heart[26:36, 26:46] = True
    labels[whole_heart] = HEART
    labels[12:36, 12:28], labels[12:36, 36:52] = RIGHT_LUNG, LEFT_LUNG
    reason = "No outline of the heart: it was not found." if lungs else "No outline: the left lung was not found."
    return Outlines(labels, whole_heart, lungs, heart, None if lungs and heart else reason)


def at_the_side(whole: Outlines) -> Outlines:
    """The same organs, moved until the right lung begins at the picture's side."""
    moved = (np.roll(mask, -12, axis=1) for mask in (whole.labels, whole.heart))
    return Outlines(*moved, whole.lungs_credible, whole.heart_credible, whole.reason)


def heat(*cells: tuple[int, int, float], size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """A heatmap with these cells (row, column, heat); a cell is 4 x 4 cells of the outlines."""
    heatmap = np.zeros(size, np.float32)
    for row, column, value in cells:
        heatmap[row, column] = value
    return heatmap


RIGHT_UPPER, RIGHT_LOWER, LEFT_LOWER = (3, 4, 1.0), (8, 4, 1.0), (8, 12, 0.8)
SPREAD = [(row, column, 1.0) for row in (3, 5, 8) for column in (4, 6, 9, 12)]
CORNER = (1, 14, 1.5)  # above the left lung, where a marker is
UPPER_AND_LOWER = (4, 4, 1.1), (8, 4, 1.1)
NOWHERE = heat()


def answer(probabilities=(0.04, 0.03, 0.002, 0.1), maps=(NOWHERE,) * 4, **fields: object) -> Explanation:
    chances = np.array(probabilities, np.float32)
    maps = None if maps is None else np.stack(maps)
    fields = {"calibrated": None, "input_check": 0.43, "source": 0, "outlines": outlines()} | fields
    return Explanation(chances, np.zeros_like(chances), heatmaps=maps, **fields)


ONE = answer((0.62, 0.3, 0.002, 0.1), (heat(LEFT_LOWER), heat(CORNER), NOWHERE, NOWHERE))
SEVERAL = answer(
    (0.62, 0.8, 0.5, 0.9),
    (heat(LEFT_LOWER), heat(CORNER, (2, 14, 1.4)), NOWHERE, heat((8, 9, 1.0), (7, 9, 1.0))),
    calibrated=np.array([0.5, 0.7, 0.4, 0.8]),
)
ONE_FINDING = dataclasses.replace(INFO, findings=("Effusion",), thresholds=(0.1712,), test_sets={})
UNCHECKED = dataclasses.replace(INFO, sources=())
ODD_NAMES = ("<script>alert(1)</script>", "$x_{1}$", "a\nb", "Grade_3 {0}", "%s", *(f"F_{k}" for k in range(95)))
MANY = dataclasses.replace(INFO, findings=ODD_NAMES, thresholds=(), test_sets={})
# Name of the expected text -> arguments of draft_report
CASES = {
    "none_above": (INFO, answer(), ()),
    "none_above_but_chosen": (INFO, answer((0.1713, 0.03, 0.002, 0.3)), ()),
    "one": (INFO, ONE, ()),
    "several": (INFO, SEVERAL, ()),
    "several_chosen": (INFO, SEVERAL, (), True),
    "one_chosen_other_common": (INFO, answer((0.1712, 0.7, 0.002, 0.1), (heat(RIGHT_UPPER),) * 4), (), True),
    "bilateral": (INFO, answer((0.7, 0.1, 0.1, 0.1), (heat(RIGHT_UPPER, LEFT_LOWER, (7, 12, 0.8)),) * 4), ()),
    "spread_out": (INFO, answer((0.7, 0.1, 0.1, 0.1), (heat(*SPREAD),) * 4), ()),
    "outside_alone_holds_most": (INFO, answer((0.7, 0.1, 0.1, 0.1), (heat(CORNER, *UPPER_AND_LOWER),) * 4), ()),
    "no_outline_model": (INFO, dataclasses.replace(ONE, outlines=None), ()),
    "no_credible_lungs": (INFO, dataclasses.replace(ONE, outlines=outlines(lungs=False, heart=False)), ()),
    "no_credible_heart": (INFO, dataclasses.replace(ONE, outlines=outlines(heart=False)), ()),
    "thorax_cut_off": (INFO, answer(outlines=at_the_side(outlines())), ()),
    "no_heatmaps": (INFO, dataclasses.replace(ONE, heatmaps=None), ()),
    "unlike": (INFO, dataclasses.replace(ONE, input_check=1.0004), ()),
    "lateral": (INFO, ONE, (LATERAL_VIEW, "This picture has colours; a radiograph has none.")),
    "notice": (INFO, ONE, ("This picture has colours; a radiograph has none.",)),
    "no_input_check": (UNCHECKED, dataclasses.replace(ONE, input_check=None, source=None), ()),
    "one_finding_above": (ONE_FINDING, answer((0.5,), (heat(RIGHT_LOWER),)), ()),
    "one_finding_below": (ONE_FINDING, answer((0.49999997,), (NOWHERE,)), ()),
    "one_finding_chosen": (ONE_FINDING, answer((0.3,), (NOWHERE,)), (), True),
    "many_odd_names": (MANY, answer(np.linspace(0.9, 0.01, 100), (heat(RIGHT_LOWER),) * 100), ()),
}


def draft_of(info: ModelInfo, explanation: Explanation, notices: tuple[str, ...], chosen: bool = False) -> ReportDraft:
    return draft_report(info, explanation, notices, 1024, 768, chosen=chosen)


def shown(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def all_sentences(draft: ReportDraft) -> list:
    return [one for section in draft.sections for one in section.sentences]


@pytest.mark.fault("H75")
@pytest.mark.parametrize("case", CASES)
def test_a_case_has_the_expected_text(case):
    assert draft_of(*CASES[case]).text == (EXPECTED / f"{case}.txt").read_text(encoding="utf-8")


def test_every_expected_text_is_a_case():
    assert {path.stem for path in EXPECTED.glob("*")} == set(CASES)


# Numbers in words: every one in the text, after names and quoted sentences are taken out, is one of the answer's.

NUMBER = re.compile(r"[<>]?\d[\d,]*(?:\.\d+)?(?: %)?")
NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip),
    min_size=1,
    max_size=20,
    unique_by=lambda name: "".join(name.split()).lower(),
)


def share(random: np.random.Generator) -> float:
    """A share of 1 in single precision: often 0, 1 or near the middle."""
    return float(np.float32(random.choice([0, 1, 0.5, 0.4999999, random.uniform(), random.uniform() ** 4])))


@st.composite
def answers(draw: st.DrawFn) -> tuple[ModelInfo, Explanation, tuple[str, ...], bool]:
    """Any model, what it says of a picture, notices, and a threshold rule."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = tuple(f"finding {k} {name}" for k, name in enumerate(draw(NAMES)))
    n = len(names)

    def each(*, gaps: bool = True) -> list[float | None]:
        return [None if gaps and random.uniform() < 0.2 else share(random) for _ in names]

    maps = np.zeros((n, 12, 16), np.float32)
    for _ in range(random.integers(30)):
        maps[random.integers(n), random.integers(12), random.integers(16)] = share(random)
    results = {kind: dict(zip(names, each(), strict=True)) for kind in KINDS}
    info = dataclasses.replace(
        INFO,
        findings=names,
        threshold=draw(st.sampled_from([0.5, share(random)])),
        thresholds=draw(st.sampled_from([(), tuple(each())])),
        test_sets=draw(st.sampled_from([{}, {"ward": TEST_SET | results}])),
    )
    of_picture = [None, outlines(), outlines(heart=False), outlines(lungs=False, heart=False)]
    explanation = answer(
        each(gaps=False),
        maps,
        calibrated=draw(st.sampled_from([None, np.array(each(gaps=False))])),
        input_check=draw(st.sampled_from([None, 0.0, 1.0, 1.0001, random.uniform(0, 1)])),
        outlines=draw(st.sampled_from(of_picture)),
    )
    if draw(st.booleans()):
        explanation = dataclasses.replace(explanation, heatmaps=None)
    notices = draw(st.sampled_from([(), (LATERAL_VIEW,), ("The 16-bit picture uses 12 bits only.",)]))
    return info, explanation, notices, draw(st.booleans())


def numbers_of(info: ModelInfo, explanation: Explanation, notices: tuple[str, ...]) -> set[float]:
    """Every number that the answer consists of, or that is counted in it."""
    found = {1024, 768, info.image_size, info.threshold, 1, *info.thresholds, *explanation.probabilities.tolist()}
    found |= {explanation.input_check, *(explanation.calibrated if explanation.calibrated is not None else ())}
    found |= set(map(float, np.float32([info.threshold, *(one or 0 for one in info.thresholds)])))
    found |= {*range(len(info.findings) + 1), len(notices)}  # so many findings reach a threshold, or do not
    for results in info.test_sets.values():
        found |= {results["num_images"], *results["pointing"].values()}
        for kind in KINDS:
            defined = [value for value in results[kind].values() if value is not None]
            found |= {*defined, float(np.mean(defined)) if defined else None}
    if explanation.outlines is not None:
        masks = [explanation.outlines.labels == RIGHT_LUNG, explanation.outlines.labels == LEFT_LUNG]
        found |= {float(mask.mean()) for mask in (*masks, explanation.outlines.heart)}
        found.add(2 * explanation.outlines.lungs_credible + explanation.outlines.heart_credible)
        ratio = cardiothoracic_ratio(explanation.outlines, 1024, 768)
        found |= set() if ratio is None else {ratio.ratio}
    if explanation.heatmaps is not None:
        found |= {*explanation.heatmaps.max(axis=(1, 2)).tolist(), *explanation.heatmaps.shape[1:]}
        places = [] if explanation.outlines is None else places_of(explanation.heatmaps, explanation.outlines)
        found |= {share for one in places if one for share in (one.largest_share, one.share_inside)}
    return found - {None}


def is_written(token: str, value: float) -> bool:
    """Whether a number in a text is this value, rounded to the token's digits."""
    plain = token.removesuffix(" %").replace(",", "")
    value *= 100 if token.endswith("%") else 1
    if plain[0] in "<>":
        return value < float(plain[1:]) if plain[0] == "<" else value > float(plain[1:])
    return abs(float(plain) - value) <= 0.5000001 * 10 ** -len(plain.partition(".")[2])


@given(answers())
@settings(deadline=None, max_examples=100)
def test_every_number_in_a_sentence_is_one_of_its_numbers_and_of_the_answer(case):
    info, explanation, notices, _ = case
    draft = draft_of(*case)
    known = numbers_of(info, explanation, notices)
    quoted = [*notices, TEST_SET["description"], *(shown(one) for one in info.findings)]
    if explanation.outlines is not None:
        quoted += [explanation.outlines.reason or ""]
    for sentence in all_sentences(draft):
        assert sentence.numbers, sentence
        assert {one.value for one in sentence.numbers} <= known, sentence
        plain = sentence.text
        for part in sorted(filter(None, quoted), key=len, reverse=True):
            plain = plain.replace(part, "")
        for token in NUMBER.findall(plain):
            assert any(is_written(token, one.value) for one in sentence.numbers), (token, sentence)


@given(answers())
@settings(deadline=None, max_examples=50)
def test_a_text_names_the_findings_that_reach_the_rule_in_force_and_promises_no_more(case):
    info, explanation, notices, chosen = case
    draft = draft_of(*case)
    assert draft.text.startswith(DISCLAIMER)
    assert draft.text.endswith(f"{DISCLAIMER}\n")
    own = info.thresholds if chosen and any(one is not None for one in info.thresholds) else ()
    limits = [info.threshold if one is None else one for one in own or [None] * len(info.findings)]
    reached = {
        name
        for name, value, limit in zip(info.findings, explanation.probabilities, limits, strict=True)
        if value >= np.float32(limit)
    }
    findings, impression = (section.sentences for section in draft.sections[2:4])
    if explanation.fails_input_check or LATERAL_VIEW in notices:
        assert len(findings) == len(impression) == 1
        assert findings[0].text.startswith("No statement is made")
        assert impression[0].text.startswith("None,")
    elif len(reached) <= MAX_NAMED:
        names = {shown(name): name for name in info.findings}
        said = {names[one.text.split(": probability")[0]] for one in findings if ": probability" in one.text}
        assert said == reached


@pytest.mark.parametrize("case", CASES)
def test_no_text_speaks_of_a_disease_that_is_there_or_not(case):
    text = draft_of(*CASES[case]).text.replace("It is no diagnosis.", "")
    claims = (
        r"diagnos|normal|present\b|absent|evidence of|consistent with|suggest|suspicious|healthy|patient has|confirm"
    )
    assert re.findall(claims, text, re.IGNORECASE) == []


def test_chosen_thresholds_fall_back_to_the_common_one_where_there_are_none():
    info = dataclasses.replace(INFO, thresholds=(None,) * 4)
    assert draft_of(info, ONE, (), True) == draft_of(info, ONE, ())
    assert draft_of(INFO, ONE, (), True).rule == "chosen"


def test_a_probability_that_is_no_number_is_refused():
    with pytest.raises(ArithmeticError):
        draft_of(INFO, answer((0.5, np.nan, 0.5, 0.5)), ())


def test_records_of_a_model_file_that_are_no_numbers_are_left_out():
    odd = TEST_SET | {"auroc": "high", "sensitivity": {"Effusion": "n"}, "specificity": None}
    text = draft_of(dataclasses.replace(INFO, test_sets={"ward": odd}), ONE, ()).text
    assert "AUROC (and sensitivity, specificity): Effusion n/a (n/a, n/a)." in text
    text = draft_of(dataclasses.replace(INFO, test_sets={"ward": odd | {"num_images": "many"}}), ONE, ()).text
    assert "test radiographs most like" not in text
    text = draft_of(dataclasses.replace(INFO, test_sets={"ward": odd | {"pointing": {"in_box": 1}}}), ONE, ()).text
    assert "boxes" not in text
