"""What the site says about one file: the JSON answer that page and programming interface share."""

import base64
import json
import math

import numpy as np

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import Outlines
from cxr.anatomy.polygons import polygons_of
from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap, in_pixels
from cxr.heatmaps.explanation import (
    INPUT_CHECK_WARNING,
    Explanation,
    describe_heatmap,
    results_that_apply,
)
from cxr.heatmaps.overlay import draw_legend, encode_png
from cxr.heatmaps.places import Place, Region
from cxr.imaging.radiograph import DecodedPicture
from cxr.inference.report_draft import CHOSEN, ReportDraft, draft_report
from cxr.metrics.number_text import shortest_decimal
from cxr.network.model_info import ModelInfo, info_to_json

NO_HEATMAPS = "The heatmaps could not be computed for this picture. The probabilities are not affected."


def build_answer(info: ModelInfo, explanation: Explanation, picture: DecodedPicture) -> dict[str, object]:
    """Collect the answer for one radiograph in JSON's types; every number in it is finite.

    Raises:
        ArithmeticError: the model gave a number that is not finite.
    """
    if not (np.isfinite(explanation.probabilities).all() and np.isfinite(explanation.logits).all()):
        raise ArithmeticError("Expected finite probabilities and logits from the model.")
    calibrated = [None] * len(info.findings) if explanation.calibrated is None else explanation.calibrated
    failed = explanation.fails_input_check
    height, width = picture.radiograph.shape
    missing = [NO_HEATMAPS] if explanation.heatmaps is None else []
    return {
        "type": picture.file_type,
        "width": width,
        "height": height,
        "notices": [*picture.notices, *missing],
        "input_check": {
            "value": None if explanation.input_check is None else _rounded(explanation.input_check),
            "failed": failed,
            "text": INPUT_CHECK_WARNING if failed else "",
            "resembles": results_that_apply(info, explanation),
        },
        "findings": [
            _finding(info, explanation, k, calibrated[k]) | {"boxes": _boxes(explanation, k, height, width)}
            for k in range(len(info.findings))
        ],
        "outlines": _outlines(explanation.outlines, width, height),
        "cardiothoracic_ratio": _ratio(explanation.outlines, width, height),
        "disclaimer": info.disclaimer,
        **_reports(info, explanation, picture),
    }


def _reports(info: ModelInfo, explanation: Explanation, picture: DecodedPicture) -> dict[str, object]:
    """Draft the report by the common threshold, and by the chosen ones where there are any."""
    height, width = picture.radiograph.shape
    drafts = [
        draft_report(info, explanation, picture.notices, width, height, chosen=chosen) for chosen in (False, True)
    ]
    report, chosen_report = map(_draft, drafts)
    return {"report": report, "chosen_report": chosen_report if drafts[1].rule == CHOSEN else None}


def _draft(draft: ReportDraft) -> dict[str, object]:
    sections = [
        {
            "title": section.title,
            "sentences": [
                {"text": said.text, "numbers": [{"name": one.name, "value": _plain(one.value)} for one in said.numbers]}
                for said in section.sentences
            ],
        }
        for section in draft.sections
    ]
    ends = {"opening": draft.opening, "closing": draft.closing}
    return {"rule": draft.rule, "text": draft.text, **ends, "sections": sections}


def _plain(value: float) -> float:
    """Leave counts whole, and single precision to the others: a probability here is that of the findings."""
    return value if isinstance(value, int) else shortest_decimal(_finite(value))


def _finding(info: ModelInfo, explanation: Explanation, k: int, calibrated: float | None) -> dict[str, object]:
    chosen = info.thresholds[k] if info.thresholds else None
    answer = {
        "name": info.findings[k],
        # Not rounded: pages sort by it, as the overlays are, and write it beside the threshold that it is held against.
        "probability": shortest_decimal(explanation.probabilities[k]),
        "calibrated_probability": None if calibrated is None else _rounded(calibrated),
        "logit": _rounded(explanation.logits[k]),
        "threshold": info.threshold,
        "chosen_threshold": chosen,
        "above": bool(explanation.probabilities[k] >= info.threshold),
        "above_chosen": bool(explanation.probabilities[k] >= (info.threshold if chosen is None else chosen)),
        "place": _place(explanation.places[k]),
    }
    if explanation.heatmaps is None:
        return answer | {"heatmap": None, "peak": None, "scale": ""}
    heatmap = [[_rounded(cell) for cell in row] for row in explanation.heatmaps[k].tolist()]
    scale = describe_heatmap(explanation.heatmaps[k], float(explanation.logits[k]))
    return answer | {"heatmap": heatmap, "peak": max(map(max, heatmap)), "scale": scale}


def _boxes(explanation: Explanation, k: int, height: int, width: int) -> list[dict[str, object]] | None:
    """Return the boxes of a finding's heatmap in pixels of the picture, the strongest first; None without a heatmap."""
    if explanation.heatmaps is None:
        return None
    sides = ("x", "y", "width", "height")
    return [
        {
            **dict(zip(sides, in_pixels(box, width, height), strict=True)),
            "score": _rounded(explanation.probabilities[k] * box.strength),
        }
        for box in boxes_from_heatmap(explanation.heatmaps[k])
    ]


def _place(place: Place | None) -> dict[str, object] | None:
    if place is None:
        return None
    return {
        "peak": _region(place.peak),
        "largest": _region(place.largest) | {"share": _rounded(place.largest_share)},
        "share_inside": _rounded(place.share_inside),
        "much_outside": place.much_outside,
        "definite": place.definite,
    }


def _region(region: Region) -> dict[str, object]:
    return {"side": region.side, "zone": region.zone, "text": region.words}


def _outlines(outlines: Outlines | None, width: int, height: int) -> dict[str, object] | None:
    """Return credible outlines as polygons in pixels of the radiograph, and why others are left out."""
    if outlines is None:
        return None
    polygons = {
        organ: [np.round(polygon * (width, height), 1).tolist() for polygon in found]
        for organ, found in polygons_of(outlines).items()
    }
    return {
        "credible": outlines.lungs_credible,
        "heart_credible": outlines.heart_credible,
        "reason": outlines.reason,
        "polygons": polygons,
    }


def _ratio(outlines: Outlines | None, width: int, height: int) -> dict[str, object] | None:
    """Return the cardiothoracic ratio, and the two lines that it is measured along in pixels of the radiograph."""
    ratio = None if outlines is None else cardiothoracic_ratio(outlines, width, height)
    if ratio is None:
        return None
    lines = {
        name: dict(zip(("left", "right", "y"), (round(value, 1) for value in line), strict=True))
        for name, line in (("heart", ratio.heart), ("thorax", ratio.thorax))
    }
    return {"ratio": round(ratio.ratio, 4), **lines}


def _rounded(value: float) -> float:
    """Keep six significant digits: what float32 holds, in a third of the characters."""
    return float(f"{_finite(value):.6g}")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ArithmeticError("Expected a finite number from the model.")
    return value


def describe_model(info: ModelInfo, engine: str) -> dict[str, object]:
    """Return everything that the model file says about itself but its arrays, and what computes."""
    return json.loads(info_to_json(info)) | {"engine": engine}


def model_identity(info: ModelInfo, engine: str) -> dict[str, object]:
    """Return what tells one model from another: goes with every answer."""
    return {
        "digest": info.digest,
        "created": info.created,
        "image_size": info.image_size,
        "num_findings": len(info.findings),
        "engine": engine,
    }


def legend() -> str:
    """Draw the colour scale as a data URI."""
    return data_uri(encode_png(draw_legend(12, 192)), "png")


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
