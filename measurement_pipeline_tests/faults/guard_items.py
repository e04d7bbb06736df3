"""A pytest plugin: a test marked `fails_without("SKIP LOCKED")` runs a second time without that guard, and must then fail.

For a parametrised test, `parameters="allowed"` names the id of the parameter set that fails.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from measurement_pipeline_tests.faults.matrix import CAUGHT

MARK = "fails_without"
_PARAMETER = "left_out"


def _id(guard: str) -> str:
    return f"without {guard}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Add a second run of the test for each of its guards."""
    guards = [mark.args[0] for mark in metafunc.definition.iter_markers(MARK)]
    if guards:
        metafunc.fixturenames.append(_PARAMETER)
        metafunc.parametrize(_PARAMETER, [None, *guards], ids=[pytest.HIDDEN_PARAM, *map(_id, guards)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For a parametrised test, keep only the parameter set that its mark names."""
    stored, named = [], {}
    for item in items:
        guard = _guard(item)
        parameters = [m.kwargs.get("parameters") for m in item.iter_markers(MARK) if m.args[0] == guard]
        if guard is None or parameters == [None]:
            stored.append(item)
            continue
        is_named = item.callspec.id.replace(_id(guard), "").strip("-") == str(parameters[0]).strip("-")  # type: ignore[attr-defined]
        named[guard] = named.get(guard, False) or is_named
        if is_named:
            stored.append(item)
    missing = sorted(guard for guard, is_there in named.items() if not is_there)
    if missing:
        raise pytest.UsageError(f"no set of parameters has the id that the mark `{MARK}` names: {', '.join(missing)}")
    items[:] = stored


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run the test. Without its guard, an assertion must fail: any other error would come from the mistake itself."""
    guard = _guard(pyfuncitem)
    if guard is None:
        return (yield)
    # Imported here because it imports most of the package.
    from measurement_pipeline_tests.faults.guards import left_out

    with left_out(guard, database_url=pyfuncitem.funcargs.get("database_url")):
        try:
            yield
        except AssertionError:
            pass
        except pytest.fail.Exception as failure:
            if str(failure).startswith("Timeout"):
                raise
        else:
            pytest.fail(f"the test passes without the guard {guard!r}")
    pyfuncitem.user_properties.append((CAUGHT, (guard, pyfuncitem.nodeid.partition("[")[0].rpartition("/")[2])))
    return True


def _guard(item: pytest.Item) -> Any:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(_PARAMETER)
