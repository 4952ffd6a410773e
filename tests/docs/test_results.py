"""The README's figures are those that the shipped model file carries."""

from pathlib import Path

from cxr.network.model_file import read_model_info

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INFO = read_model_info(ROOT / "model" / "chest_xray_densenet_model.h5")


def test_readme_quotes_the_test_sets_of_the_shipped_model():
    nih, phantom = INFO.test_sets["nih"], INFO.test_sets["phantom"]
    rows = (
        ("mean AUROC over 14 findings", [_auroc(nih), _auroc(phantom)]),
        ("accuracy at 0.5", [f"{one['accuracy']:.3f} ({one['baseline_accuracy']:.3f})" for one in (nih, phantom)]),
        ("heatmap peak inside the box", [_pointing(nih), _pointing(phantom)]),
    )
    for name, expected in rows:
        line = next(line for line in README.splitlines() if line.startswith(f"| {name}"))
        assert [cell.strip() for cell in line.split("|")[2:4]] == expected
    for one in (nih, phantom):
        assert f"{one['num_images']} " in README and f" {one['num_patients']} " in README


def test_readme_says_how_many_radiographs_the_model_has_learned_from():
    real = len((ROOT / "model" / "training_images.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert f"learned from {real:,} radiographs of NIH" in README
    assert f"and {INFO.split_sizes['train']['images'] - real:,} of the phantom" in README


def _auroc(one: dict) -> str:
    low, high = one["mean_auroc_interval"]
    return f"{one['mean_auroc']:.2f} ({low:.2f} to {high:.2f})"


def _pointing(one: dict) -> str:
    found = one["pointing"]
    return f"{found['in_box']:.2f} ({found['random_in_box']:.2f}) of {found['num_cases']}"
