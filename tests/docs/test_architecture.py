"""The import table: who may import whom, and which module owns which library. Read from the sources with `ast`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("main_train", "app", "gradcam")

# The packages of cxr, lowest first: a package's modules import from their own package and from those before it.
PACKAGES = (
    "system", "imaging", "decoding", "data", "network", "metrics", "anatomy", "heatmaps", "inference", "dicom_out",
    "outputs", "training", "distillation", "report", "site",
)  # fmt: skip
NUM_MODULES = range(3, 11)  # in a package
# Library -> the only files that may import it; a name that ends in a dot stands for a whole package.
OWNERS = {
    "flask": ("app", "cxr.site."),
    "waitress": ("cxr.site.connection", "cxr.site.server"),
    "pandas": ("cxr.data.", "cxr.report."),
    "keras": ("cxr.anatomy.outline_file", "cxr.anatomy.outline_model", "cxr.anatomy.outline_network",
              "cxr.data.batches", "cxr.distillation.", "cxr.network.", "cxr.inference.backend",
              "cxr.inference.predictor", "cxr.training.", "cxr.report.model_evaluation", "cxr.report.test_evaluation",
              "main_train"),
    "tensorflow": ("cxr.network.densenet", "cxr.training.optimisation"),
    "jax": ("cxr.network.densenet", "cxr.training.optimisation", "cxr.training.parallel"),
}  # fmt: skip
# Rooms that know arrays alone.
WITHOUT_KERAS = ("system", "imaging", "metrics", "heatmaps", "site")


def sources() -> dict[str, Path]:
    """Dotted module name -> file, for all the project's own code but the tests."""
    folders = ("cxr", "tools", "benchmarks")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def imported(source: str) -> set[str]:
    """Dotted names that a source imports, wherever the statement stands; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


IMPORTS = {name: imported(path.read_text(encoding="utf-8")) for name, path in sources().items()}
MODULES = sorted(name for name in IMPORTS if name.startswith("cxr.") and not name.endswith("__init__"))


def package_of(module: str) -> str:
    return module.split(".")[1]


def cxr_modules(names: set[str]) -> set[str]:
    """The modules of cxr among imported names, without packages."""
    return {name for name in names if name in MODULES}


def goes_up(module: str, other: str) -> bool:
    return PACKAGES.index(package_of(other)) > PACKAGES.index(package_of(module))


def test_every_module_is_in_a_package():
    assert {package_of(name) for name in MODULES} == set(PACKAGES)
    assert all(name.count(".") == 2 for name in MODULES)
    assert [path.name for path in (ROOT / "cxr").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_three_to_ten_modules_and_says_what_it_owns(package):
    assert sum(package_of(name) == package for name in MODULES) in NUM_MODULES
    init = ast.parse((ROOT / "cxr" / package / "__init__.py").read_text(encoding="utf-8"))
    assert len(ast.get_docstring(init).splitlines()) >= 2
    assert len(init.body) == 1, "a package does nothing on import"


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_cxr_go_down_only(module):
    assert [other for other in cxr_modules(IMPORTS[module]) if goes_up(module, other)] == []


def test_no_circle_inside_cxr():
    done, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for other in sorted(cxr_modules(IMPORTS[module])):
            visit(other)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)
    assert done == set(MODULES)


def test_scripts_are_on_top():
    for name, names in IMPORTS.items():
        roots = {imported_name.split(".")[0] for imported_name in names}
        if name.startswith("cxr"):
            assert not roots & {*SCRIPTS, "tools", "tests", "benchmarks"}, name
        if not name.startswith(("tools", "benchmarks")):
            assert not roots & {"tools", "tests", "benchmarks"}, name
        if name.startswith("tools"):
            assert not roots & {*SCRIPTS, "tests", "benchmarks"}, name
    assert not {n.split(".")[0] for n in IMPORTS["gradcam"]} & {"main_train", "app"}
    assert "app" not in {n.split(".")[0] for n in IMPORTS["main_train"]}
    assert "main_train" not in {n.split(".")[0] for n in IMPORTS["app"]}


def test_the_other_scripts_take_grad_cam_from_its_public_face():
    assert "gradcam.overlay_heatmap" in IMPORTS["app"]
    assert "gradcam.heatmaps" in IMPORTS["main_train"]
    public = {"heatmaps", "explain", "overlay_heatmap"}
    for script in ("app", "main_train"):
        past_it = {name for name in IMPORTS[script] if name.startswith("cxr.") and name.rpartition(".")[2] in public}
        assert past_it <= {"cxr.heatmaps"}, past_it  # the package, whose other modules are nobody's public face


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_its_owners(library):
    product = {name: names for name, names in IMPORTS.items() if not name.startswith(("tools", "benchmarks"))}
    users = {name for name, names in product.items() if library in {n.split(".")[0] for n in names}}
    owners = OWNERS[library]
    packages = tuple(owner for owner in owners if owner.endswith("."))
    assert [user for user in users if user not in owners and not user.startswith(packages)] == []


@pytest.mark.parametrize("package", WITHOUT_KERAS)
def test_packages_that_know_arrays_alone_import_no_framework(package):
    users = {name for name in MODULES if package_of(name) == package}
    assert not [name for name in users if {n.split(".")[0] for n in IMPORTS[name]} & {"keras", "tensorflow", "jax"}]


def test_rules_catch_a_forbidden_import():
    found = cxr_modules(imported("from cxr.report.report_files import write_report\nimport keras"))
    assert found == {"cxr.report.report_files"}
    assert goes_up("cxr.metrics.ranking", "cxr.report.report_files")
    assert not goes_up("cxr.report.report_files", "cxr.metrics.ranking")
    assert imported("def f():\n    from flask import Flask") == {"flask", "flask.Flask"}


def test_no_test_module_imports_another():
    files = list((ROOT / "tests").rglob("*.py"))
    tests = {path.stem for path in files if path.stem.startswith("test_")}
    for path in files:
        names = {part for name in imported(path.read_text(encoding="utf-8")) for part in name.split(".")[:2]}
        assert not names & (tests - {"test_evaluation"}) - {path.stem}, path


def test_tests_mirror_the_packages():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*PACKAGES, "scripts", "tools", "pages", "docs", "support"}
    assert [path.name for path in (ROOT / "tests").glob("*.py")] == ["conftest.py"]
