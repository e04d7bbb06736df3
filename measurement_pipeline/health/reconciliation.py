"""Compare the ledger's month with the hits that Songstats counted. Pure.

Three known effects are not a drift: calls with an unknown result may or may not have been counted; hits near the month's end may
belong to the other month, because the vendor's time zone is unknown; calls can be made while the vendor is asked.
"""

from datetime import UTC
from decimal import Decimal

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.spend import Month

# A drift of this many hits or this share passes: a person tried the key, or the vendor counts at another moment.
TOLERANCE = 5
TOLERANCE_SHARE = 0.01


def ledger_matches_vendor(before: Month, after: Month, vendor: VendorMonth) -> HealthResult:
    """Fail on a drift. `before` and `after`: the ledger when the vendor was asked, and when it had answered."""
    hits = after.counted + after.unknown
    metadata: dict[str, int | float | str] = {
        "month since (UTC)": f"{after.begins.astimezone(UTC):%Y-%m-%d}",
        "ledger: calls": after.calls,
        "ledger: counted": after.counted,
        "ledger: unknown": after.unknown,
        "ledger: not billed": after.cost_nothing,
        "ledger: recordings answered": after.answered,
        "Songstats: requests": _known_or_unknown(vendor.requests),
        "Songstats: objects": _known_or_unknown(vendor.objects),
        "Songstats: bill": _known_or_unknown(vendor.bill),
    }
    if vendor.requests is None:
        message = f"Songstats' count is unknown ({vendor.detail}): {counted(hits, 'hit')} of the ledger were not compared with it"
        return HealthResult(False, message, reason="vendor unavailable", metadata=metadata)
    tolerance = max(TOLERANCE, int(TOLERANCE_SHARE * hits))
    requests = _distance_outside(vendor.requests, before.counted - before.early, hits + after.late)
    metadata |= {"drift: requests": vendor.requests - hits, "drift: requests, unexplained": requests}
    objects = None
    if vendor.objects is not None:
        objects = _distance_outside(vendor.objects, before.answered - before.early, after.asked)
        metadata |= {"drift: objects": vendor.objects - after.answered, "drift: objects, unexplained": objects}
    ledger = f"{counted(hits, 'hit')} ({after.unknown} with an unknown result)"
    parts = [
        f"Songstats counts {counted(vendor.requests, 'request')} this month, the ledger {ledger}",
        f"objects: Songstats {_known_or_unknown(vendor.objects)}, ledger {counted(after.answered, 'recording')} answered",
    ]
    drifts = [f"{drift:+d} {unit}" for drift, unit in ((requests, "requests"), (objects, "objects")) if drift]
    if abs(requests) <= tolerance and abs(objects or 0) <= tolerance:
        within = f"unexplained, within the tolerance of {tolerance}: {' and '.join(drifts)}"
        parts.append(within if drifts else "no unexplained drift")
        return HealthResult(True, "; ".join(parts), metadata=metadata)
    parts.append(f"unexplained DRIFT beyond the tolerance of {tolerance}: {' and '.join(drifts)}")
    parts.append(_suggest_cause(after, requests or objects or 0))
    return HealthResult(False, "; ".join(parts), reason="drift", metadata=metadata)


def _suggest_cause(month: Month, drift: int) -> str:
    time_zone = "Songstats' month may begin in a time zone other than UTC"
    if drift < 0:
        not_billed = (
            "Songstats may not bill all calls that the ledger counts (404, rejected), which only makes the budget safer"
        )
        return f"{not_billed}; {time_zone}"
    return (
        f"check whether something else uses the key, and whether Songstats bills the {counted(month.cost_nothing, 'call')} that "
        f"the ledger does not count; if so, lower SONGSTATS_HIT_LIMIT by that number; {time_zone}"
    )


def _distance_outside(value: int, low: int, high: int) -> int:
    """Return how far `value` is below `low` (negative) or above `high` (positive); 0 inside."""
    return min(value - low, 0) or max(value - high, 0)


def _known_or_unknown(value: int | Decimal | None) -> int | str:
    if value is None:
        return "unknown"
    return value if isinstance(value, int) else str(value)
