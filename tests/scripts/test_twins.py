"""Checks that must fail: each plants a fault that real projects have, and asks a test of this suite to notice it."""

import csv
import io
import re

import numpy as np
import pytest
import test_app
import test_checks
import test_dicom
import test_images
import test_labels
import test_training
from PIL import Image, ImageFile
from site_tools import quick_client

from cxr.data import checks, labels
from cxr.imaging.jpeg import JPEG_SIGNATURE
from cxr.imaging.radiograph import decode_with_notices
from cxr.system import atomic_files
from cxr.training import loop


@pytest.mark.parametrize("name", ["C06-long-row", "C06-short-row"])
def test_C06_twin_a_reader_that_cuts_and_fills_rows_is_noticed(tmp_path, monkeypatch, name):
    def shifted(data):
        for line, cells in enumerate(csv.reader(io.StringIO(data.decode())), start=1):
            yield line, [*cells, "0"][:4] if len(cells) < 4 else cells[:4]

    monkeypatch.setattr(labels, "records", shifted)
    with pytest.raises(AssertionError):
        test_labels.assert_refused(tmp_path, *test_labels.FAULTY[name])


def test_C17_twin_a_check_that_finds_no_shared_patient_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "count_shared_patients", lambda *_: 0)
    with pytest.raises(AssertionError):
        test_checks.test_C17_same_patient_in_two_splits_is_a_fault_unless_allowed(test_checks.Project(tmp_path))


def test_C25_twin_a_reader_that_breaks_on_odd_bytes_is_noticed(tmp_path, monkeypatch):
    def break_down(data):
        if b'"' in data:
            raise KeyError("a quote")
        return iter([])

    monkeypatch.setattr(labels, "records", break_down)
    with pytest.raises(KeyError):  # hypothesis lets the example's own error through
        test_labels.test_C25_any_bytes_give_a_result(tmp_path)


def pillow(data: bytes) -> np.ndarray:
    """Decode as most projects do."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def test_I02_twin_a_decoder_that_clips_16_bits_is_noticed(monkeypatch):
    monkeypatch.setattr(test_images, "decode_radiograph", pillow)
    monkeypatch.setattr(test_images, "decode_with_notices", lambda data: (pillow(data), (), "png"))
    with pytest.raises(AssertionError):
        test_images.test_I02_full_range_16_bit_is_scaled_by_closed_form()


def test_I14_twin_a_decoder_that_fills_cut_files_up_is_noticed(monkeypatch):
    def lenient(data: bytes) -> np.ndarray:
        if not data.startswith(JPEG_SIGNATURE):
            raise test_images.ImageError("type", "This is not a picture, and the sentence is long enough.")
        return pillow(data)

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(test_images, "decode_radiograph", lenient)
    with pytest.raises((pytest.fail.Exception, OSError)):
        test_images.test_I14_cut_jpeg_is_never_half_a_picture(progressive=False)


def test_I38_twin_an_error_that_quotes_the_header_is_noticed(monkeypatch, caplog, capfd):
    def tell(data: bytes):
        try:
            return decode_with_notices(data)
        except test_dicom.ImageError as error:
            found = re.search(rb"DOE\^[A-Z]+", data)
            raise test_dicom.ImageError(error.code, f"{error} {found and found[0].decode()}") from None

    monkeypatch.setattr(test_dicom, "decode_with_notices", tell)
    with pytest.raises(AssertionError, match="DOE"):
        test_dicom.test_I38_no_value_of_the_header_leaves(caplog, capfd)


def test_T02_twin_a_resume_that_forgets_the_optimiser_is_noticed(tmp_path, monkeypatch):
    real = loop._resume

    def forget(run):
        real(run)
        if run.phase is not None:  # something was resumed
            for variable in run.logits.optimizer.variables:
                variable.assign(np.zeros(variable.shape))

    monkeypatch.setattr(loop, "_resume", forget)
    with pytest.raises(AssertionError):
        test_training.test_T02_resumed_run_equals_the_uninterrupted_one(tmp_path, looks=3)


def test_T13_twin_a_lock_that_locks_nothing_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "_try_lock", lambda descriptor: True)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_training.test_T13_second_run_is_told_who_holds_the_lock_and_a_killed_one_lets_go(tmp_path)


@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_H08_twin_a_site_that_takes_posts_from_everywhere_is_noticed(monkeypatch, path):
    monkeypatch.setattr(test_app.site, "sent_by_another_site", lambda *_: False)
    with pytest.raises(AssertionError):
        test_app.test_H08_posts_from_other_sites_are_refused(
            quick_client(), {"Sec-Fetch-Site": "cross-site"}, 403, path
        )


def test_H05_twin_a_site_that_answers_the_first_file_only_is_noticed(monkeypatch):
    real = test_app.site._uploads
    monkeypatch.setattr(test_app.site, "_uploads", lambda: real()[:1])
    with pytest.raises((AssertionError, ValueError)):
        test_app.test_H05_each_of_several_files_has_its_own_result_or_error(quick_client())
