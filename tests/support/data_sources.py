"""Small data sets in the layouts of the published ones, as files in a folder."""

import gzip
from pathlib import Path

import cv2
import numpy as np

from tools.datasets.chexpert_labels import FINDINGS as CHEXPERT_FINDINGS


def write_table(path: Path, header: str, rows: list[str]) -> None:
    text = "\n".join([header, *rows]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_picture(path: Path, size=(72, 80), depth=np.uint8) -> None:
    """Write a picture of its own content; .dicom and .dcm hold a PNG, which the decoder recognises all the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, path.as_posix())))
    pixels = rng.integers(0, np.iinfo(depth).max, size).astype(depth)
    extension = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
    path.write_bytes(cv2.imencode(extension, pixels)[1].tobytes())


def chexpert_files(folder: Path) -> Path:
    """40 training patients with a frontal and a lateral film each, 6 patients of valid.csv."""
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_FINDINGS)
    for name, patients in (("train", range(40)), ("valid", range(100, 106))):
        rows = []
        for patient in patients:
            for view in ("frontal", "lateral"):
                path = f"{name}/patient{patient:05}/study1/view1_{view}.jpg"
                write_picture(folder / path)
                labels = dict.fromkeys(CHEXPERT_FINDINGS, "")
                labels |= {
                    "Cardiomegaly": ("1.0", "0.0", "-1.0", "")[patient % 4],
                    "Edema": "1.0" if patient % 2 else "",
                }
                cells = ["CheXpert-v1.0-small/" + path, "Male", "60", view.capitalize(), "AP", *labels.values()]
                rows.append(",".join(cells))
        write_table(folder / f"{name}.csv", header, rows)
    return folder


def mimic_files(folder: Path) -> Path:
    """12 subjects with a study each; a PA and a lateral film per study, subject 11 of none of the labels."""
    labels, metadata, splits = [], [], []
    for number in range(12):
        subject, study = 10000000 + number * 37, 50000000 + number
        if number != 11:
            labels.append(f"{subject},{study}," + ",".join("1.0" if k == number % 14 else "" for k in range(14)))
        for view in ("PA", "LATERAL"):
            dicom = f"{number:08x}-{view.lower()}"
            metadata.append(f"{dicom},{subject},{study},CHEST (PA AND LAT),{view},3056,2544")
            splits.append(f"{dicom},{study},{subject},{('train', 'validate', 'test')[number % 3]}")
            write_picture(folder / "files" / f"p{subject}"[:3] / f"p{subject}" / f"s{study}" / f"{dicom}.jpg")
    prefix = "mimic-cxr-2.0.0"
    findings = ",".join(CHEXPERT_FINDINGS)
    write_table(folder / f"{prefix}-chexpert.csv.gz", f"subject_id,study_id,{findings}", labels)
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns"
    write_table(folder / f"{prefix}-metadata.csv.gz", header, metadata)
    write_table(folder / f"{prefix}-split.csv.gz", "dicom_id,study_id,subject_id,split", splits)
    return folder


def vindr_files(folder: Path, *, with_test: bool) -> Path:
    """Images a0 to a9 with three readers each; two of them see the box of even images, one that of odd ones."""
    rows = []
    for number in range(10):
        size = (100 + number, 200)
        write_picture(folder / "train" / f"a{number}.dicom", size)
        for reader in ("R1", "R2", "R3"):
            if reader == "R1" or (reader == "R2" and number % 2 == 0):
                rows.append(f"a{number},{reader},Cardiomegaly,50,25,150,75")
            else:
                rows.append(f"a{number},{reader},No finding,,,,")
    write_table(
        folder / "annotations" / "annotations_train.csv", "image_id,rad_id,class_name,x_min,y_min,x_max,y_max", rows
    )
    if with_test:
        rows = ["b0,Cardiomegaly,0,0,200,100", "b1,No finding,,,,", "b2,Other lesion,20,10,40,20"]
        for name in ("b0", "b1", "b2"):
            write_picture(folder / "test" / f"{name}.dicom", (100, 200))
        write_table(
            folder / "annotations" / "annotations_test.csv", "image_id,class_name,x_min,y_min,x_max,y_max", rows
        )
    return folder


def rsna_files(folder: Path) -> Path:
    """20 images, every fourth with two boxes."""
    rows, classes = [], []
    for number in range(20):
        name = f"0004cfab-14fd-4e49-80ba-63a80b6bd{number:03}"
        boxes = [f"{100 + number},152,213,379", "562,152,256,453.0"] if number % 4 == 0 else [",,,"]
        rows += [f"{name},{box},{int(number % 4 == 0)}" for box in boxes]
        classes.append(f"{name},{('Lung Opacity', 'Normal', 'No Lung Opacity / Not Normal', 'Normal')[number % 4]}")
        write_picture(folder / "stage_2_train_images" / f"{name}.dcm")
    write_table(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)
    write_table(folder / "stage_2_detailed_class_info.csv", "patientId,class", classes)
    return folder


def padchest_file(folder: Path) -> Path:
    rows = [
        ("a1", "1", "PA", "['pleural effusion', ' cardiomegaly']", "Physician"),
        ("a2", "1", "AP", "['subcutaneous emphysema']", "RNN_model"),
        ("a3", "2", "PA", "['normal']", "Physician"),
        ("a4", "3", "L", "['pneumonia']", "Physician"),
        ("a5", "4", "PA", "['unchanged']", "Physician"),
        ("a6", "5", "PA", "['exclude', 'pneumonia']", "Physician"),
        ("a7", "6", "PA", "", "Physician"),
        ("a8", "7", "PA", "['laminar atelectasis', 'unchanged']", "Physician"),
        *((f"b{number}", str(10 + number), "PA", "['nodule']", "Physician") for number in range(8)),
    ]
    header = ",ImageID,ImageDir,PatientID,Projection,MethodLabel,Labels"
    lines = [
        f'{k},{image}.png,{k % 3},{patient},{view},{method},"{text}"'
        for k, (image, patient, view, text, method) in enumerate(rows)
    ]
    write_table(folder / "PADCHEST.csv.gz", header, lines)
    for k, (image, *_) in enumerate(rows):
        write_picture(folder / "pictures" / str(k % 3) / f"{image}.png", depth=np.uint16)
    return folder / "PADCHEST.csv.gz"


def class_folders(folder: Path) -> Path:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for number in range(count):
            write_picture(folder / split / "NORMAL" / f"IM-{split}-{number:04}.jpeg")
            write_picture(folder / split / "PNEUMONIA" / f"{split}person{number // 2}_bacteria_{number}.jpeg")
    (folder / "train" / "NORMAL" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "PNEUMONIA" / "Thumbs.db").write_bytes(b"x")
    return folder


def any_table(path: Path) -> Path:
    rows = []
    for number in range(20):
        labels = ("Effusion|Pleural Effusion|Edema", "No Finding", " Edema ", "Hernia")[number % 4]
        rows.append(f"x{number}.png,{number // 2},{('PA', 'AP', 'LL')[number % 3]},{labels}")
    write_table(path, "file,person,view,what", rows)
    return path
