"""The import table: who may import whom, and which module owns which library. Read from the sources with `ast`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("main_train", "app", "gradcam")

# Every module of cxr belongs to one room. A room's modules import from their own room and from the rooms named.
ROOMS = {
    "labels": ("problems", "columns", "labels", "image_folder", "overlaps", "checks"),
    "images": ("image_rules", "png", "jpeg", "dicom", "dicom_header", "dicom_walk", "dicom_pixels", "dicom_grey",
               "images", "picture_files"),
    "metrics": ("calibration", "ranking", "metrics", "localisation"),
    "network": ("durable", "novelty", "modelinfo", "modelfile", "weights", "network"),
    "terminal": ("progress", "terminal"),
    "dataset": ("arguments", "cache", "dataset", "losses", "recipe", "checkpoint", "stopping", "history",
                "processes", "parallel", "training"),
    "predictor": ("backend", "predictor"),
    "scoring": ("scoring",),
    "drawing": ("colormap", "overlay", "panel"),
    "report": ("summary", "figure_style", "figures", "finding_panels", "report_page", "report"),
    "results": ("packing", "gallery", "evaluation"),
    "answers": ("explanation", "answer"),
    "site": ("site_errors", "site_rules", "uploads", "decode_worker", "decoder", "model_slot", "request_log",
             "envelope", "service", "openapi", "server"),
}  # fmt: skip
LOWEST = ("labels", "images", "metrics", "network", "terminal")
MAY_IMPORT = {
    "labels": (),
    "images": (),
    "metrics": (),
    "network": (),
    "terminal": (),
    "dataset": LOWEST,
    "predictor": LOWEST,
    "scoring": LOWEST,
    "drawing": LOWEST,
    "report": LOWEST,
    "results": (*LOWEST, "dataset", "drawing", "report"),
    "answers": (*LOWEST, "drawing"),
    "site": (*LOWEST, "predictor", "drawing", "answers"),
}
# Library -> the only files that may import it.
OWNERS = {
    "flask": ("app",),
    "waitress": ("cxr.server",),
    "pandas": ("cxr.labels", "cxr.report"),
    "keras": ("cxr.network", "cxr.modelfile", "cxr.weights", "cxr.losses", "cxr.dataset", "cxr.parallel",
              "cxr.training", "cxr.packing", "cxr.evaluation", "cxr.predictor", "main_train"),
    "tensorflow": ("cxr.network",),
    "jax": ("cxr.network", "cxr.parallel"),
}  # fmt: skip


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
ROOM_OF = {module: room for room, modules in ROOMS.items() for module in modules}


def cxr_modules(names: set[str]) -> set[str]:
    """The cxr modules among imported names, without the package."""
    return {name.split(".")[1] for name in names if name.startswith("cxr.") and f"cxr.{name.split('.')[1]}" in IMPORTS}


def test_every_module_of_cxr_has_one_room():
    modules = {name.removeprefix("cxr.") for name in IMPORTS if name.startswith("cxr.") and name != "cxr.__init__"}
    assert modules == set(ROOM_OF)
    assert len(ROOM_OF) == sum(map(len, ROOMS.values()))


@pytest.mark.parametrize("module", sorted(ROOM_OF))
def test_imports_inside_cxr_go_down_only(module):
    room = ROOM_OF[module]
    for other in cxr_modules(IMPORTS[f"cxr.{module}"]):
        assert ROOM_OF[other] == room or ROOM_OF[other] in MAY_IMPORT[room], f"cxr.{module} imports cxr.{other}"


def test_no_circle_inside_cxr():
    done, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for other in sorted(cxr_modules(IMPORTS[f"cxr.{module}"])):
            visit(other)
        path.pop()
        done.add(module)

    for module in ROOM_OF:
        visit(module)
    assert done == set(ROOM_OF)


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


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_its_owners(library):
    product = {name: names for name, names in IMPORTS.items() if not name.startswith(("tools", "benchmarks"))}
    users = {name for name, names in product.items() if library in {n.split(".")[0] for n in names}}
    assert users <= set(OWNERS[library])


def test_table_catches_a_forbidden_import():
    assert cxr_modules(imported("from cxr.report import write_report\nimport keras")) == {"report"}
    assert "report" not in MAY_IMPORT[ROOM_OF["metrics"]]
    assert imported("def f():\n    from flask import Flask") == {"flask", "flask.Flask"}
