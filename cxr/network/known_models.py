"""The published DenseNet121 models for chest X-rays that are known here, and how their files are fetched.

Owns the table of facts, each from the page of its source; no figure in it was measured here.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.network.densenet import IMAGENET_MEAN, IMAGENET_STD
from cxr.network.model_info import ModelFileError
from cxr.network.published_weights import SINGLE_CHANNEL

CONNECT_SECONDS = 10  # a network that does not answer by then counts as none
SHA256_DIGITS = 64
DOWNLOAD_SECONDS = 1200  # 85 MB at 70 kB/s; what has come by then is kept, and the next try goes on from there

NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
XRV_FINDINGS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip


@dataclass(frozen=True)
class PublishedModel:
    """A DenseNet121 in PyTorch's layout: where its file is, and what a reader of it must know.

    Attributes:
        outputs: the finding of each output, in the file's order; "" where the model was not trained for one. Empty
            where the file has no head for findings: start weights.
        mean, std: per input channel, of grey values of 0 to 1.
        image_size: side in pixels that the whole radiograph is resized to.
        thresholds: operating point per output, on its probability; None where the source has none.
        revision: commit, tag or branch at the hub.
        sha256: of the file; empty where it was not published.
        megabytes: size of the file; None where it is not known.
        figure, figure_source: what the source says the model reaches, in words, and where.
        note: what a user should know beside that.
    """

    name: str
    outputs: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    trained_on: str
    licence: str
    repository: str = ""
    file: str = ""
    revision: str = "main"
    sha256: str = ""
    megabytes: float | None = None
    thresholds: tuple[float | None, ...] = ()
    threshold_rule: str = ""
    figure: str = ""
    figure_source: str = ""
    note: str = ""

    @property
    def named_columns(self) -> list[int]:
        """Positions of the outputs that have a finding."""
        return [column for column, name in enumerate(self.outputs) if name]

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings in the file's order."""
        return tuple(self.outputs[column] for column in self.named_columns)


_CHEST = {"mean": (0.5056,) * 3, "std": (0.252,) * 3, "image_size": 256, "licence": "Apache-2.0"}
_CHEST_HEAD = {
    "outputs": NIH_FINDINGS,
    "figure_source": "https://github.com/lambert-x/medical_mae",
    "note": "published for 256 pixels and their middle 224; here the whole radiograph at 256, the same scale",
}
_X_RAYS = "266,340 chest X-rays, self-supervised"  # arXiv 2210.12843
_MAE = f"{_X_RAYS} as a masked autoencoder"
_MOCO = f"{_X_RAYS} with MoCo v2"
_XRV_SETS = {
    "all": ("NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI and RSNA together",
            "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899", range(18),
            (0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724, 0.103246614,
             0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766, 0.053369623, 0.035975814,
             0.20204692, 0.05015312)),
    "nih": ("NIH ChestX-ray14", "", range(14),
            (0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932, 0.012037827,
             0.038744126, 0.0037213727, 0.014730946, 0.016149804, 0.054241467, 0.037198864, 0.0004403434)),
    "pc": ("PadChest", "a9148ef62ae4e7a31a9bed8cef22811f39681cd61e4390398936efc6280af521", (*range(14), 15),
           (0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257, 0.0023071, 0.055412333,
            0.044385884, 0.042766232, 0.043258056, 0.037629247, 0.005658899, 0.0091741895, 0.026507627)),
    "chex": ("CheXpert", "", (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
             (0.1988969, 0.05710573, 0.0531293, 0.1435217, 0.27212676, 0.07749717, 0.19712369, 0.09932402, 0.09273402,
              0.3270967, 0.10888247)),
    "rsna": ("RSNA Pneumonia Challenge", "906a59f48cf09638b745d66848a6c6f9d741368c66244717a81207329d140268", (8, 16),
             (0.13486601, 0.13511065)),
    "mimic_nb": ("MIMIC-CXR, labels by NegBio", "", (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
                 (0.08558747, 0.011884617, 0.0040595434, 0.010733786, 0.118761964, 0.022924708, 0.06358637,
                  0.022143636, 0.017476924, 0.1258702, 0.014020768)),
    "mimic_ch": ("MIMIC-CXR, labels by CheXpert", "", (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
                 (0.09121389, 0.010573786, 0.005023008, 0.003698257, 0.08001232, 0.037242252, 0.05006329, 0.019866971,
                  0.03823637, 0.11303808, 0.0069147074)),
}  # fmt: skip


def _xrv(name: str) -> PublishedModel:
    """Describe one of TorchXRayVision's models (torchxrayvision/models.py, model_urls)."""
    trained_on, sha256, columns, thresholds = _XRV_SETS[name]
    points = dict(zip(columns, thresholds, strict=True))
    return PublishedModel(
        name=f"xrv-{name.replace('_', '-')}",
        outputs=tuple(finding if column in points else "" for column, finding in enumerate(XRV_FINDINGS)),
        mean=SINGLE_CHANNEL[0],
        std=SINGLE_CHANNEL[1],
        image_size=224,
        trained_on=trained_on,
        licence="Apache-2.0 (the data sets have licences of their own)",
        repository=f"torchxrayvision/densenet121-res224-{name}",
        file="model.pt",
        sha256=sha256,
        megabytes=28.4,
        thresholds=tuple(points.get(column) for column in range(len(XRV_FINDINGS))),
        threshold_rule="TorchXRayVision's operating points",
        figure="per data set in the paper",
        figure_source="https://arxiv.org/abs/2111.00595",
        note="published for the middle square of a radiograph; here the whole radiograph is resized",
    )


KNOWN_MODELS = {
    model.name: model
    for model in (
        PublishedModel(
            "medmae-mae",
            trained_on=f"{_MAE}; then NIH ChestX-ray14",
            repository="1aurent/densenet121.medmae_CXR_mae_ft_CXR",
            file="model.safetensors",
            revision="872b2d0",
            megabytes=28,
            figure="mean AUROC 0.812 on NIH's official test list",
            **_CHEST,
            **_CHEST_HEAD,
        ),
        PublishedModel(
            "medmae-mae-checkpoint",
            trained_on=f"{_MAE}; then NIH ChestX-ray14",
            repository="MapleF/eva_x",
            file="densenet121_medical_mae_pt_cxr14_ft.pth",
            sha256="2a657fb291f8d463ad62fc02702a02890d3805dddd916ed51e28ec9e6966e1b1",
            megabytes=84.5,
            figure="mean AUROC 0.812 on NIH's official test list",
            **_CHEST,
            **_CHEST_HEAD,
        ),
        PublishedModel(
            "medmae-mocov2",
            trained_on=f"{_MOCO}; then NIH ChestX-ray14",
            repository="1aurent/densenet121.medmae_CXR_mocov2_ft_CXR",
            file="model.safetensors",
            revision="b25d835bf9a63586c16c26892f7eea473a68797e",
            megabytes=28,
            figure="mean AUROC 0.806 on NIH's official test list",
            **_CHEST,
            **_CHEST_HEAD,
        ),
        PublishedModel(
            "medmae-mocov2-checkpoint",
            trained_on=f"{_MOCO}; then NIH ChestX-ray14",
            repository="MapleF/eva_x",
            file="densenet121_mocov2_pt_cxr14_ft.pth",
            sha256="9d63a196466ccd8376385c04e9475d5ddf18dd48817ae28d64c804d416acabd2",
            figure="mean AUROC 0.806 on NIH's official test list",
            **_CHEST,
            **_CHEST_HEAD,
        ),
        *(_xrv(name) for name in _XRV_SETS),
        PublishedModel(
            "medmae-mae-backbone",
            outputs=(),
            trained_on=_MAE,
            repository="1aurent/densenet121.medmae_CXR_mae",
            file="model.safetensors",
            **_CHEST,
        ),
        PublishedModel(
            "medmae-mocov2-backbone",
            outputs=(),
            trained_on=_MOCO,
            repository="1aurent/densenet121.medmae_CXR_mocov2",
            file="model.safetensors",
            **_CHEST,
        ),
        PublishedModel(
            "imagenet-torchvision",
            outputs=(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            image_size=224,
            trained_on="ImageNet",
            licence="BSD-3-Clause",
            repository="timm/densenet121.tv_in1k",
            file="model.safetensors",
            megabytes=32.3,
        ),
        PublishedModel(
            "imagenet-timm",
            outputs=(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            image_size=224,
            trained_on="ImageNet, with RandAugment",
            licence="Apache-2.0",
            repository="timm/densenet121.ra_in1k",
            file="model.safetensors",
            megabytes=32.3,
        ),
    )
}


def fetch(model: PublishedModel, cache_dir: str | os.PathLike | None = None) -> Path:
    """Return a model's file from the hub's cache folder, downloading it once; HF_ENDPOINT names another hub.

    A download that was broken off goes on where it ended. The file's SHA-256 is compared with the table's or, where
    that has none, with the one that the hub states.

    Raises:
        ModelFileError: no network, no answer in time, no such file, or another checksum.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HTTPError
    except ModuleNotFoundError:
        raise ModelFileError("Fetching models needs huggingface_hub: pip install huggingface_hub.") from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what counts is told below
    place = {"repo_id": model.repository, "filename": model.file, "revision": model.revision}
    endpoint, source = os.environ.get("HF_ENDPOINT") or None, f"{model.repository}/{model.file}"
    cached = huggingface_hub.try_to_load_from_cache(**place, cache_dir=cache_dir)
    if isinstance(cached, str):
        return _checked(Path(cached), source, model.sha256)

    def download() -> tuple[str, str]:
        url = huggingface_hub.hf_hub_url(**place, endpoint=endpoint)
        # Asked once, without the retries of the download itself: where there is no network, that is known at once.
        stated = huggingface_hub.get_hf_file_metadata(url, token=False, timeout=CONNECT_SECONDS).etag or ""
        path = huggingface_hub.hf_hub_download(
            **place, cache_dir=cache_dir, endpoint=endpoint, etag_timeout=CONNECT_SECONDS, token=False
        )
        return path, stated

    try:
        path, stated = _in_time(download, DOWNLOAD_SECONDS)
    # Those of the HTTP library, of the hub's own checks, and full disks.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
        raise ModelFileError(
            f"{source} could not be fetched ({reason}). Check the network and try again, which goes on from what has "
            "come, or download the file elsewhere and convert it with tools.get_model --file."
        ) from error
    # For a large file the hub's ETag is its SHA-256; for a small one it is git's 40 digits.
    return _checked(Path(path), source, model.sha256 or (stated if len(stated) == SHA256_DIGITS else ""))


def _checked(path: Path, source: str, expected: str) -> Path:
    """Return the path of a file whose checksum is right, or not known; delete one whose is not."""
    if not expected:
        return path
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        path.resolve().unlink()  # the cache's own copy, which the path is a link to
        path.unlink(missing_ok=True)
        raise ModelFileError(
            f"{source}: expected SHA-256 {expected[:16]}..., received {found[:16]}.... The file was deleted; it was "
            "changed at its source or damaged on the way. Try again."
        )
    return path


def _in_time(work: Callable[[], Any], seconds: float) -> Any:
    """Do something in a thread of its own, as DNS has no timeout; raise its error or TimeoutError."""
    outcome: dict[str, object] = {}

    def run() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="download")
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "result" not in outcome:
        raise TimeoutError(f"not finished after {seconds:.0f} s")
    return outcome["result"]
