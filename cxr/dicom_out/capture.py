"""The answer as a picture for any viewer: a Secondary Capture of the most probable findings' overlays.

One picture per answer, so that nobody has to page, and a reader sees at once that it is no radiograph: captions, all
probabilities, the disclaimer. Drawn by Pillow, since the site has no Matplotlib.
Source: DICOM PS3.3 A.8.1 (Secondary Capture Image IOD), C.7.6.1 (general image), C.8.6 (SC equipment and image).
"""

import cv2
import highdicom
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from cxr.data.columns import display_name
from cxr.dicom_out.codes import SOURCE_IMAGE, short_text
from cxr.dicom_out.instance import PURPOSE, Answer, common_arguments
from cxr.heatmaps.explanation import common_peak, describe_heatmap, rank_findings
from cxr.heatmaps.overlay import draw_legend, overlay_heatmap
from cxr.metrics.number_text import probability_by, threshold

NUM_OVERLAYS = 3  # with the list of findings they fill two rows of two
MAX_LISTED = 20  # findings
# Pixels.
CELL, GAP, MARGIN = 640, 24, 28
CAPTION, LINE, ROW = 58, 26, 31
TEXT_SIZE, SMALL, LARGE = 19, 16, 26
NAME_WIDTH, NUMBER_WIDTH = 210, 170  # of the list's rows
BACKGROUND, TEXT, MUTED, TRACK = (16, 19, 23), (233, 237, 241), (155, 166, 178), (48, 55, 63)
ABOVE, BELOW, WARNING = (255, 180, 84), (107, 143, 176), (255, 138, 128)


def build_capture(answer: Answer, radiograph: np.ndarray) -> Dataset:
    """Build the Secondary Capture for a radiograph, uint8 (height, width), upright as it was answered."""
    capture = highdicom.sc.SCImage(
        pixel_array=draw_capture(answer, radiograph),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=answer.source.header.StudyInstanceUID,
        **common_arguments(answer, 0, "capture"),
    )
    capture.PatientOrientation = ""  # several pictures and text: no direction holds for all of it
    capture.BodyPartExamined = "CHEST"
    capture.BurnedInAnnotation = "YES"
    capture.LossyImageCompression = "00"
    capture.DerivationDescription = short_text(
        f"Grad-CAM over the source image. {answer.info.disclaimer} Model file {answer.info.digest}", 1024
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID = answer.source.header.SOPClassUID
    reference.ReferencedSOPInstanceUID = answer.source.header.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [highdicom.sr.CodedConcept(*SOURCE_IMAGE)]
    capture.SourceImageSequence = [reference]
    return capture


def draw_capture(answer: Answer, radiograph: np.ndarray) -> np.ndarray:
    """Draw the overlays, every finding's probability and what has to be said with them: uint8 (height, width, 3)."""
    info, explanation = answer.info, answer.explanation
    ranking = rank_findings(explanation.probabilities)
    maps = explanation.heatmaps
    shown = ranking[:NUM_OVERLAYS] if maps is not None else []
    listed = ranking[:MAX_LISTED]
    height, width = _fitting(radiograph)
    cell_height = CAPTION + max(height, LINE + ROW * len(listed) + LINE)
    head = MARGIN + 2 * LINE + LINE * len(answer.warnings) + GAP // 2
    columns = 2
    rows = -(-(max(len(shown), 1) + 1) // columns)
    page_width = 2 * MARGIN + columns * CELL + (columns - 1) * GAP
    page_height = head + rows * (cell_height + GAP) + 3 * LINE + MARGIN
    page = Image.new("RGB", (page_width, page_height), BACKGROUND)
    draw = ImageDraw.Draw(page)
    _write(draw, MARGIN, MARGIN - 8, info.disclaimer, WARNING, LARGE)
    for line, warning in enumerate(answer.warnings):
        _write(draw, MARGIN, MARGIN + LINE * (line + 1) + 8, _cut(warning, 130), WARNING, TEXT_SIZE)
    places = [(MARGIN + (k % columns) * (CELL + GAP), head + k // columns * (cell_height + GAP)) for k in range(4)]
    small = cv2.resize(radiograph, (width, height), interpolation=cv2.INTER_AREA)
    peak = None if maps is None else common_peak(maps)
    if maps is None:
        _picture(
            page, draw, places[0], np.repeat(small[:, :, np.newaxis], 3, axis=2), "Radiograph", TEXT, "no heatmaps"
        )
    for place, k in zip(places, shown, strict=False):
        colour = ABOVE if explanation.probabilities[k] >= info.threshold else TEXT
        probability = probability_by(explanation.probabilities[k], info.threshold)
        caption = f"{_cut(display_name(info.findings[k]), 34)}  {probability}"
        scale = describe_heatmap(maps[k], float(explanation.logits[k]))
        _picture(page, draw, place, overlay_heatmap(small, maps[k], peak=peak), caption, colour, scale)
    _list_findings(draw, places[max(len(shown), 1)], answer, listed)
    _foot(page, draw, page_height - MARGIN - 2 * LINE, answer, peak)
    return np.asarray(page)


def _fitting(radiograph: np.ndarray) -> tuple[int, int]:
    """Return the height and width, in pixels, that a radiograph has in its cell."""
    height, width = radiograph.shape
    scale = CELL / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _picture(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    picture: np.ndarray,
    caption: str,
    colour: tuple[int, int, int],
    scale: str,
) -> None:
    left, top = place
    _write(draw, left, top, caption, colour, LARGE)
    _write(draw, left, top + 32, scale, MUTED, SMALL)
    page.paste(Image.fromarray(picture), (left, top + CAPTION))


def _list_findings(draw: ImageDraw.ImageDraw, place: tuple[int, int], answer: Answer, listed: list[int]) -> None:
    """Draw a bar per finding, with the threshold as a line."""
    info, (left, top) = answer.info, place
    whole = "All findings" if len(listed) == len(info.findings) else f"The {len(listed)} most probable findings"
    _write(draw, left, top, whole, TEXT, LARGE)
    _write(draw, left, top + 32, f"probability; line: threshold {threshold(info.threshold)}", MUTED, SMALL)
    bar_left, bar_width = left + NAME_WIDTH, CELL - NAME_WIDTH - NUMBER_WIDTH
    for number, k in enumerate(listed):
        y = top + CAPTION + number * ROW
        probability = float(answer.explanation.probabilities[k])
        above = probability >= info.threshold
        _write(draw, left, y, _cut(display_name(info.findings[k]), 22), TEXT, TEXT_SIZE)
        draw.rectangle((bar_left, y + 5, bar_left + bar_width, y + 17), fill=TRACK)
        draw.rectangle((bar_left, y + 5, bar_left + bar_width * probability, y + 17), fill=ABOVE if above else BELOW)
        line = bar_left + bar_width * info.threshold
        draw.line((line, y + 1, line, y + 21), fill=TEXT, width=2)
        said = f"{probability_by(probability, info.threshold)}  {'above' if above else 'below'}"
        _write(draw, bar_left + bar_width + 16, y, said, ABOVE if above else TEXT, TEXT_SIZE)


def _foot(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, answer: Answer, peak: float | None) -> None:
    if peak is not None:
        page.paste(Image.fromarray(draw_legend(14, 200)), (MARGIN, top + 4))
        _write(draw, MARGIN + 214, top, f"heat (Grad-CAM of the logit), from none to {peak:+.2g}", MUTED, SMALL)
    made = f"{answer.written:%Y-%m-%d %H:%M}, model file {answer.info.digest[:16] or 'not saved'}"
    _write(draw, MARGIN, top + LINE, f"{PURPOSE}. Drawn {made}", MUTED, SMALL)


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, text: str, colour: tuple[int, int, int], size: int) -> None:
    draw.text((left, top), text, fill=colour, font=ImageFont.load_default(size))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
