"""Versions below which a known vulnerability is open, in what is installed and in every requirements file; what the
container holds.
"""

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import gradcam

ROOT = Path(__file__).parents[2]
FLOORS = {
    "keras": "3.15.1",  # hostile .h5 files: safe mode, outside data, shape bombs, checks of every group
    "pydicom": "3.0.2",  # path traversal by DICOMDIR (CVE-2026-32711)
    "pillow": "12.3.0",  # memory faults and endless loops in several readers
    "werkzeug": "3.1.6",  # device names in safe_join
    "flask": "3.1.3",  # missing Vary header
    "waitress": "3.0.2",  # request smuggling, use after close
}
FILES = sorted(ROOT.glob("requirements*.txt"))


def requirements_of(path: Path) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {one.name.lower(): one for one in found}


def lower_bound(requirement: Requirement) -> Version:
    """Return the oldest version that a requirement allows."""
    bounds = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
    return max(bounds, default=Version("0"))


@pytest.mark.parametrize("package", FLOORS)
def test_what_is_installed_is_not_below_the_floor(package):
    assert Version(version(package)) >= Version(FLOORS[package])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_requirements_file_allows_a_version_below_the_floor(path):
    for name, requirement in requirements_of(path).items():
        assert lower_bound(requirement) >= Version(FLOORS.get(name, "0.0.1")), requirement


def test_every_package_with_a_floor_is_required_by_name():
    assert set(FLOORS) <= set(requirements_of(ROOT / "requirements.txt"))


@pytest.mark.parametrize(
    ("line", "bound"), [("keras>=3.15.0,<4", "3.15.0"), ("keras<4", "0"), ("keras==3.15.1", "3.15.1"), ("keras", "0")]
)
def test_the_lower_bound_of_a_requirement_is_found(line, bound):
    assert lower_bound(Requirement(line)) == Version(bound)


@pytest.mark.parametrize("name", ["MODEL_PATH", "ANATOMY_PATH"])
def test_the_container_has_the_model_files_that_the_site_opens(name):
    file = f"model/{getattr(gradcam, name).name}"
    assert f"COPY {file} model/" in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert f"!{file}" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
