"""Deselects `long` tests in the short form."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `long`, unless `--long` is given."""
    if config.getoption("--long"):
        return
    stored = [item for item in items if item.get_closest_marker("long") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in stored])
    items[:] = stored
