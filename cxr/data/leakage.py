"""Duplicates and leakage: an image listed twice, or an image, patient or identical pixels in two splits."""

import decimal
import hashlib
import itertools
import re
import unicodedata

import numpy as np

from cxr.data.labels import Split
from cxr.data.problems import DataProblems, shown

NUMBER = re.compile(r"[+-]?\d{1,50}(\.\d{0,50})?([eE]\+?\d{1,2})?", re.ASCII)
# What stands before the number of a patient in one table and not in another: p10000032, patient00012, PT-100.
ID_PREFIX = re.compile(r"(?:patient|subject|pat|pt|sub|p|id)[-_ #.]*(?=\d+$)", re.ASCII)
EXACT = decimal.Context(prec=200)  # digits; no NUMBER is rounded
NUM_EXAMPLES = 5  # rows, images or patients named in a message


def without_duplicates(split: Split, file: str, problems: DataProblems) -> Split:
    """Keep the first row of each image: a warning where the others say the same, a fault where they do not."""
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(split.images):
        rows_of.setdefault(image, []).append(row)
    keep = np.ones(len(split.images), bool)
    for image, rows in rows_of.items():
        if len(rows) == 1:
            continue
        keep[rows[1:]] = False
        lines = ", ".join(str(split.lines[row]) for row in rows[:NUM_EXAMPLES])
        where = (
            f"image {shown(image)} is listed {len(rows)} times (lines {lines}{', ...' * (len(rows) > NUM_EXAMPLES)})"
        )
        if len({(split.patients[row], split.labels[row].tobytes()) for row in rows}) == 1:
            problems.warning("duplicate row", file, f"{where}; the first row is used.", split.lines[rows[0]])
        else:
            message = f"{where} with different labels or patients. Keep one row."
            problems.fault("conflicting rows", file, message, split.lines[rows[0]])
    return split if keep.all() else split.select(keep)


def count_shared_images(first: Split, second: Split, files: dict[str, str], problems: DataProblems) -> int:
    """Record the images that are in both splits, and count them."""
    lines = dict(zip(second.images, second.lines, strict=True))
    shared = [(image, line) for image, line in zip(first.images, first.lines, strict=True) if image in lines]
    if shared:
        examples = "; ".join(
            f"{shown(image)} on lines {line} and {lines[image]}" for image, line in shared[:NUM_EXAMPLES]
        )
        message = (
            f"images that are also in {files[second.name]}: {len(shared)} ({examples}). Remove them from one file."
        )
        problems.fault("shared images", files[first.name], message)
    return len(shared)


def count_shared_patients(
    first: Split, second: Split, files: dict[str, str], problems: DataProblems, allow_leakage: bool
) -> int:
    """Record the patients that are in both splits, as hashes and line numbers, and count them."""
    lines = dict(zip(reversed(second.patients), reversed(second.lines), strict=True))  # the first line of each
    shared = {}
    for patient, line in zip(first.patients, first.lines, strict=True):
        if patient and patient in lines:
            shared.setdefault(patient, line)
    if shared:
        examples = "; ".join(
            f"{_hashed(patient)} on lines {line} and {lines[patient]}"
            for patient, line in itertools.islice(shared.items(), NUM_EXAMPLES)
        )
        message = f"patients who are also in {files[second.name]}: {len(shared)} (id hashes: {examples})."
        if allow_leakage:
            problems.warning("shared patients", files[first.name], f"{message} Scores will look better than they are.")
        else:
            message += " Move each patient to one file, or accept untrue scores with --allow leakage."
            problems.fault("shared patients", files[first.name], message)
    return len(shared)


def warn_of_retyped_patients(first: Split, second: Split, files: dict[str, str], problems: DataProblems) -> None:
    """Warn of patients of two splits whose ids differ as text only by how they are written.

    Spreadsheets and pandas make 100, 100.0 or 1e2 of 00000100. Ids stay text all the same: nobody is moved.
    """
    if not (first.patients_known and second.patients_known):
        return
    spelled = dict(zip(reversed(second.patients), reversed(second.lines), strict=True))  # the first line of each
    by_key = {patient_key(patient): (patient, line) for patient, line in reversed(spelled.items()) if patient}
    found = {}
    for patient, line in zip(first.patients, first.lines, strict=True):
        other, other_line = by_key.get(patient_key(patient), (patient, 0)) if patient else ("", 0)
        if other != patient and patient not in spelled and patient not in found:
            found[patient] = f"lines {line} and {other_line}"
    if found:
        examples = "; ".join(itertools.islice(found.values(), NUM_EXAMPLES))
        message = (
            f"patient ids that stand in {files[second.name]} in another spelling, such as 100 and 100.0 or 00100: "
            f"{len(found)} ({examples}). If they are the same patients, scores will be too good: write ids alike."
        )
        problems.warning("retyped patients", files[first.name], message)


def patient_key(patient: str) -> str:
    """Return what two spellings of an id have in common.

    The number, however it is written (100.0, 1e2, "1,000", full-width digits, with or without "patient" before it), or
    else the text without case, accents' encoding, blanks, invisible characters, dashes between letter and digit, and
    zeros before a number.
    """
    text = unicodedata.normalize("NFKC", patient)
    text = "".join(one for one in text if unicodedata.category(one) != "Cf").strip().casefold()
    text = ID_PREFIX.sub("", text)
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text, re.ASCII):
        text = text.replace(",", "")
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    if NUMBER.fullmatch(text):
        return format(EXACT.normalize(decimal.Decimal(text)), "f")
    text = re.sub(r"\s+", "", text)
    text = re.sub(r"(?<=[^\W\d_])[-_]+(?=\d)|(?<=\d)[-_]+(?=[^\W\d_])", "", text)
    return re.sub(r"(?<=[^\W\d_])0+(?=\d)", "", text)


def _hashed(patient: str) -> str:
    """Return a short name for a patient, to recognise it by in a log that should not carry the id."""
    return hashlib.sha256(patient.encode()).hexdigest()[:8]


def warn_of_copies(
    parts: dict[str, Split], digests: dict[str, str], files: dict[str, str], problems: DataProblems
) -> None:
    """Record images of different splits and names that have the same pixels.

    Args:
        digests: image name -> digest of the pixels.
    """
    first_seen: dict[str, tuple[str, str, int]] = {}  # digest -> split, image, line
    for name, part in parts.items():
        for image, line in zip(part.images, part.lines, strict=True):
            if image not in digests:
                continue
            split, original, original_line = first_seen.setdefault(digests[image], (name, image, line))
            if split != name and original != image:
                message = (
                    f"{shown(image)} has the same pixels as {shown(original)} in {files[split]} line {original_line}."
                )
                problems.warning("same pixels", files[name], message, line)
