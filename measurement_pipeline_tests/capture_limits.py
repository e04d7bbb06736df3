"""Limits of captures with the price that the figures of the tests are in."""

from decimal import Decimal

from measurement_pipeline.domain.capture import CaptureLimits

USD_PER_ALBUM = Decimal("0.003")


def capture_limits(cap: str | Decimal = "25", *, deployment: str = "1000") -> CaptureLimits:
    return CaptureLimits(Decimal(cap), USD_PER_ALBUM, Decimal(deployment))
