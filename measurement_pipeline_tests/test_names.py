"""Unique names: no two public classes share a name, and no import renames one."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "measurement_pipeline"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


def test_no_two_public_classes_share_a_name():
    homes = defaultdict(list)
    for path, module in modules():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path)
    assert len(homes) > 100, "expected the package's classes to be found"
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_no_import_renames_a_name_of_this_project():
    renamed = [
        f"{path}:{node.lineno}: {alias.name} as {alias.asname}"
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "measurement_pipeline"
        for alias in node.names
        if alias.asname is not None and alias.asname != alias.name
    ]
    assert renamed == []
