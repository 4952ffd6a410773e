"""The DICOM objects of one answer, as files; the only door to the modules that need highdicom.

highdicom is imported when the first objects are made: who wants none does without it, and does not wait for it.
"""

import importlib.util

import numpy as np

from cxr.dicom_out.instance import Answer, to_file

NOT_INSTALLED = "DICOM results need highdicom: pip install -r requirements-serve.txt, or pip install highdicom."


def can_write_dicom() -> bool:
    """Say whether highdicom is installed."""
    return importlib.util.find_spec("highdicom") is not None


def dicom_objects(answer: Answer, radiograph: np.ndarray) -> dict[str, bytes]:
    """Make the objects of an answer: what each is -> its DICOM file.

    Args:
        radiograph: uint8 (height, width), upright, as it was answered.
    """
    from cxr.dicom_out.capture import build_capture
    from cxr.dicom_out.structured_report import build_report

    return {
        "capture": to_file(build_capture(answer, radiograph), answer),
        "report": to_file(build_report(answer), answer),
    }
