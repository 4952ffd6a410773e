"""The DICOM objects of one answer, as files; the only door to the modules that need highdicom.

highdicom is imported when the first objects are made: who wants none does without it, and does not wait for it.
"""

import importlib.util
import io
import logging
import zipfile

import numpy as np

from cxr.dicom_out.instance import Answer, to_file

NOT_INSTALLED = "DICOM results need highdicom: pip install -r requirements-serve.txt, or pip install highdicom."


FAST = 1  # of zlib's levels; most of a capture is background


def can_write_dicom() -> bool:
    """Say whether highdicom is installed."""
    return importlib.util.find_spec("highdicom") is not None


def dicom_objects(answer: Answer, radiograph: np.ndarray) -> dict[str, bytes]:
    """Make the objects of an answer: what each is -> its DICOM file.

    Args:
        radiograph: uint8 (height, width), upright, as it was answered.
    """
    # Its log lines repeat identifiers of the source.
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)
    from cxr.dicom_out.capture import build_capture
    from cxr.dicom_out.segmentation import build_segmentation
    from cxr.dicom_out.structured_report import build_report

    datasets = {"capture": build_capture(answer, radiograph), "report": build_report(answer, *radiograph.shape)}
    if answer.explanation.outlines is not None:
        segmentation = build_segmentation(answer, answer.explanation.outlines, *radiograph.shape)
        datasets |= {} if segmentation is None else {"segmentation": segmentation}
    return {what: to_file(dataset, answer) for what, dataset in datasets.items()}


def to_archive(objects: dict[str, bytes]) -> bytes:
    """Put the objects of an answer into a ZIP archive, as archives of DICOM files are exchanged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST) as archive:
        for what, data in objects.items():
            archive.writestr(zipfile.ZipInfo(f"{what}.dcm"), data, zipfile.ZIP_DEFLATED, FAST)
    return buffer.getvalue()
