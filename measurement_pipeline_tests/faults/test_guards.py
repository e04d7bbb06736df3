"""Each guard has a test that fails without it. `guard_items` describes how those tests run."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from measurement_pipeline_tests.faults.guard_items import MARK
from measurement_pipeline_tests.faults.guards import GUARDS, left_out

TESTS = Path(__file__).parents[1]


def guards_named_by_tests() -> Iterator[str]:
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if f"mark.{MARK}(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARK:
                yield ast.literal_eval(node.args[0])


def test_each_guard_has_one_test_that_fails_without_it():
    assert Counter(guards_named_by_tests()) == Counter(list(GUARDS))


@pytest.mark.parametrize("name", GUARDS)
def test_each_guard_can_be_removed_from_the_code(name: str):
    """Check that the guard's statement, pattern or function still exists."""
    with left_out(name, database_url=None):
        pass
