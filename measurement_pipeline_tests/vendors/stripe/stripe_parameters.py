"""The parameters that Stripe's library knows of an endpoint, read from its own types: `line_items[][price]`, `metadata[*]`."""

import types
import typing
from collections.abc import Iterator, Mapping

from stripe import RequestOptions


def parameters(params: type) -> set[str]:
    """The path of each value that a parameter type of the library has a place for."""
    return {
        f"{name}{rest}"
        for name, hint in hints(params).items()
        if name not in RequestOptions.__annotations__
        for rest in _inside(hint)
    }


def hints(typed: type) -> dict[str, typing.Any]:
    """The type of each field."""
    # Names of the fields that all of them inherit; the module of the inheriting type does not have them.
    return typing.get_type_hints(typed, localns={"StripeContext": object, "Mapping": Mapping})


def _inside(hint: typing.Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        for one in arguments:
            yield from _inside(one)
    elif origin is list:
        yield from (f"[]{rest}" for rest in _inside(arguments[0]))
    elif origin is dict:
        yield "[*]"
    elif isinstance(hint, type) and hasattr(hint, "__required_keys__"):
        for name, inner in hints(hint).items():
            yield from (f"[{name}]{rest}" for rest in _inside(inner))
    else:
        yield ""
