"""The shipped outline network's file, and what its card says of it."""

from pathlib import Path

from cxr.anatomy.outline_file import read_outline_info

ROOT = Path(__file__).resolve().parents[2]
MODEL_PATH = ROOT / "model" / "anatomy.h5"
MAX_MEGABYTES = 8


def test_card_names_the_file_and_what_it_learned_from():
    info, page = read_outline_info(MODEL_PATH), (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    card = page.partition("## The anatomy model\n")[2].partition("\n## ")[0]
    size = MODEL_PATH.stat().st_size / 1e6
    assert size <= MAX_MEGABYTES
    assert f"`model/anatomy.h5` ({size:.1f} MB, SHA-256 `{info.digest[:16]}`)" in card
    assert info.structures == ("right_lung", "left_lung", "heart")
    counts = {"outlined": "97 radiographs", "phantom": "2,000 pictures", "guessed": "2,218 of the 2,300"}
    counts["boxed"] = "82 of those"
    for name, words in counts.items():
        assert f"{info.settings['images'][name]:,}" in words
        assert words in card
    assert "CC BY 4.0" in card and "CC BY 4.0" in info.data
