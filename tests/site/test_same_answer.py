"""One decoder: the same file gets the same verdict from the function, from the site and from the data check."""

import csv

import numpy as np
import pytest
import radiographs as files
from broken_pictures import broken_pngs
from dicom_parts import MANY_PARTS
from site_tools import quick_client, upload

from cxr.data.checks import check_splits
from cxr.imaging.radiograph import ImageError, decode_radiograph, decode_with_notices

PICTURE = files.radiograph()
MEGAPIXEL = np.zeros((1000, 1000), np.uint8)
REFUSED = {
    "I05 printing colours": files.pillow_bytes(PICTURE, mode="CMYK"),
    "I08 GIF": files.pillow_bytes(PICTURE, "GIF"),
    "I09 animated": files.png(PICTURE, before=files.chunk(b"acTL", bytes(8))),
    "I10 empty": b"",
    "I11 web page": b"<html>" * 99,
    "I13 cut PNG": files.png(PICTURE)[:-40],
    "I14 cut JPEG": files.pillow_bytes(PICTURE)[:-40],
    "I15 wrong checksum": broken_pngs()["wrong checksum"],
    "I18 bomb": files.png_of_zeros(30_000, 3_000),
    "I21 scans": files.jpeg_with_scans(1_006),
    "I22 small": files.png(PICTURE[:63]),
    "I23 blank": files.png(np.zeros_like(PICTURE)),
    "I31 deflated": files.dicom_start("1.2.840.10008.1.2.1.99") + b"x" * 99,
    "I32 frames": files.dicom(PICTURE, NumberOfFrames=2),
    "I33 no pixels": files.dicom(PICTURE, PixelData=None),
    "I34 colours": files.dicom(PICTURE, PhotometricInterpretation="PALETTE COLOR"),
    "I36 lies": files.dicom(PICTURE, Rows=200, Columns=200),
    "I60 closed JPEG": files.pillow_bytes(PICTURE)[:-400] + b"\xff\xd9",
    "I62 more pixels": files.dicom(PICTURE, Rows=64, Columns=64),
    "I91 parts": files.dicom_encapsulated(files.j2k_of_tiny_precincts(1000), MEGAPIXEL, 8, files.JPEG_2000),
    "I37 tiny parts": files.dicom_start() + MANY_PARTS["items"],
}
READ = {
    "I01": files.png(PICTURE),
    "I02": files.png(PICTURE.astype(np.uint16) * 16, 16),
    "I06": files.pillow_bytes(np.stack([PICTURE, PICTURE // 4, PICTURE[::-1]], axis=2), "PNG"),
    "I07": files.pillow_bytes(PICTURE, exif=b"Exif\x00\x00" + files.exif_block(6)),
    "I16": files.png(PICTURE) + b"<script>alert(1)</script>",
    "I27": files.dicom(PICTURE.astype(np.uint16) * 16, 12),
    "I28": files.dicom(PICTURE, PhotometricInterpretation="MONOCHROME1"),
    "I35": files.dicom(PICTURE, Modality="CT"),
    "I39": files.dicom(PICTURE, BurnedInAnnotation="YES"),
    "I64": files.dicom(PICTURE[:, ::-1], PatientOrientation=["R", "F"]),
    "I66": files.dicom(PICTURE, ViewPosition="LLO"),
}


def deep_check(folder, data):
    """Run the data check over three splits of one image each, of which the first is the given file."""
    (folder / "images").mkdir()
    for name in ("train", "val", "test"):
        content = data if name == "train" else files.png(files.radiograph(seed=len(name)))
        (folder / "images" / f"{name}.png").write_bytes(content)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["Image", "Edema", "Patientid"], [f"{name}.png", 1, name]])
    paths = [folder / f"{name}.csv" for name in ("train", "val", "test")]
    return check_splits(*paths, folder / "images", decode=decode_with_notices)


@pytest.mark.fault(
    "I05",
    "I08",
    "I09",
    "I10",
    "I11",
    "I13",
    "I14",
    "I15",
    "I18",
    "I21",
    "I22",
    "I23",
    "I31",
    "I32",
    "I33",
    "I34",
    "I36",
    "I37",
    "I60",
    "I62",
    "I91",
)
@pytest.mark.parametrize("kind", REFUSED)
def test_one_verdict_everywhere(kind, tmp_path):
    with pytest.raises(ImageError) as refused:
        decode_radiograph(REFUSED[kind])
    answer = upload(quick_client(), REFUSED[kind], path="/api/predict")
    assert (answer.status_code, answer.json["code"]) == (refused.value.status, refused.value.code)
    assert answer.json["detail"] == str(refused.value)
    page = upload(quick_client(), REFUSED[kind])
    assert page.status_code == refused.value.status
    (fault,) = deep_check(tmp_path, REFUSED[kind]).faults
    assert (fault.kind, fault.line) == ("unreadable image", 2)
    assert str(refused.value) in fault.message


@pytest.mark.fault("I01", "I02", "I06", "I07", "I16", "I27", "I28", "I35", "I39", "I64", "I66")
@pytest.mark.parametrize("kind", READ)
def test_one_picture_everywhere(kind, tmp_path):
    radiograph, notices, file_type = decode_with_notices(READ[kind])
    answer = upload(quick_client(), READ[kind], path="/api/predict")
    assert answer.status_code == 200
    (result,) = answer.json["results"]
    assert (result["height"], result["width"], result["type"]) == (*radiograph.shape, file_type)
    assert tuple(result["notices"][: len(notices)]) == notices
    page = upload(quick_client(), READ[kind])
    assert b"<script>alert" not in page.data
    assert deep_check(tmp_path, READ[kind]).faults == ()
