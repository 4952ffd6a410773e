"""What a request brings: files with cleaned names, or one of the shipped sample radiographs."""

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_NAME = 60  # characters that a page shows of a file name
# Radiographs of the shipped test split with one finding, or none: name -> SHA-256 of the file, and its labels. The
# model has not learned from them. Their content tells them from a patient's film of the same name.
SAMPLES = {
    "00000054_000.png": ("6939317fdd4f3b25be2c0233f6929fda6629ec5407841abe61e2dd80e05319ff", ("Cardiomegaly",)),
    "00000173_000.png": ("ab04789cd8e322c2cbf3fb43ead928b6af79e8b0cd10ebbc60e730878f8fc2c4", ("Effusion",)),
    "00000178_001.png": ("e1c9cb25e56787beceb7bdc70e43faee177423e024697939cdb4b4592121dcc4", ("Pneumothorax",)),
    "00000096_000.png": ("a48e6142f488f625c0bf1ae1394bd840f51549c989eee051a738691c32f18804", ("Edema",)),
    "00000011_001.png": ("ddddbfc21eb8781ae523e6e88c2ae8dc7e04da4b2c10556d7ae0a0ca0072b5b8", ("Hernia",)),
    "00000003_000.png": ("d1d49ee26566f5c0ce94342b05e637934ff0e98f309a3a6e5769dac2f225e1ac", ()),
}


@dataclass(frozen=True, eq=False)
class Upload:
    """One file of a request.

    Attributes:
        name: cleaned, for the answer alone; never part of a path, never logged. May be empty.
        labels: the true findings, where it is a shipped sample.
    """

    name: str
    data: bytes
    labels: tuple[str, ...] | None = None


def clean_name(name: str) -> str:
    """Make a file name fit to be shown: its last part, without control, format and surrogate characters, shortened.

    Format characters can turn the text around or hide a part of it (Unicode, general categories Cc, Cf, Cs, Co, Cn).
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    spaced = (" " if one.isspace() else one for one in last)
    plain = " ".join("".join(one for one in spaced if unicodedata.category(one)[0] != "C").split())
    if plain in (".", ".."):
        return ""
    if len(plain) <= MAX_NAME:
        return plain
    tail = 15  # shows the extension
    return f"{plain[: MAX_NAME - tail - 1]}…{plain[-tail:]}"


def load_samples(root: Path = ROOT) -> dict[str, Upload]:
    """Read the shipped sample radiographs that exist and are what they were: name -> Upload."""
    samples = {}
    for name, (digest, labels) in SAMPLES.items():
        path = root / "images" / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() == digest:
            samples[name] = Upload(name, data, labels)
    return samples
