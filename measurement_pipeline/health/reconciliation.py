"""Does the vendor count what we count? Pure: the ledger's month and the vendor's, one finding out.

Both figures are told as they are. What is known to blur the comparison is allowed for before anything is called a drift: calls of
unknown fate may or may not have been counted; hits near the month's edge may be of another month, since whose time zone the
vendor's month follows is not known; and calls may be made while the vendor is being asked.
"""

from datetime import UTC
from decimal import Decimal

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.spend import Month

# A drift of so many, or of one in a hundred, is not worth a word: a person tried the key, the vendor counts at another moment.
TOLERANCE = 5
TOLERANCE_SHARE = 0.01


def ledger_matches_vendor(before: Month, after: Month, vendor: VendorMonth) -> HealthResult:
    """`before` and `after`: the ledger as it was when the vendor was asked, and when it had answered."""
    hits = after.counted + after.unknown
    figures: dict[str, int | float | str] = {
        "month since (UTC)": f"{after.begins.astimezone(UTC):%Y-%m-%d}",
        "ledger: calls": after.calls,
        "ledger: counted": after.counted,
        "ledger: of unknown fate": after.unknown,
        "ledger: cost nothing": after.cost_nothing,
        "ledger: recordings answered": after.answered,
        "Songstats: requests": _known_or_unknown(vendor.requests),
        "Songstats: objects": _known_or_unknown(vendor.objects),
        "Songstats: bill": _known_or_unknown(vendor.bill),
    }
    if vendor.requests is None:
        words = (
            f"what Songstats counted is unknown ({vendor.detail}); the ledger counts {counted(hits, 'hit')} this month"
        )
        return HealthResult(False, words, reason="vendor not asked", metadata=figures)
    tolerance = max(TOLERANCE, int(TOLERANCE_SHARE * hits))
    requests = _distance_outside(vendor.requests, before.counted - before.early, hits + after.late)
    figures |= {"drift: requests": vendor.requests - hits, "drift: requests, unexplained": requests}
    objects = None
    if vendor.objects is not None:
        objects = _distance_outside(vendor.objects, before.answered - before.early, after.asked)
        figures |= {"drift: objects": vendor.objects - after.answered, "drift: objects, unexplained": objects}
    ours = f"{counted(hits, 'hit')} ({after.unknown} of unknown fate)"
    said = [
        f"Songstats counts {counted(vendor.requests, 'request')} this month, the ledger {ours}",
        f"objects: {_known_or_unknown(vendor.objects)} against {counted(after.answered, 'recording')} answered",
    ]
    drifts = [f"{_signed(drift)} {what}" for drift, what in ((requests, "requests"), (objects, "objects")) if drift]
    if abs(requests) <= tolerance and abs(objects or 0) <= tolerance:
        said.append(f"within the tolerance of {tolerance}" if drifts else "no drift that is not explained")
        return HealthResult(True, "; ".join(said), metadata=figures)
    said.append(f"DRIFT beyond the tolerance of {tolerance}: {' and '.join(drifts)} that nothing explains")
    said.append(_suggest_cause(after, requests or objects or 0))
    return HealthResult(False, "; ".join(said), reason="drift", metadata=figures)


def _suggest_cause(month: Month, drift: int) -> str:
    zone = "Songstats' month may begin in another time zone than UTC's"
    if drift < 0:
        return f"Songstats may not bill all that we count (404, rejected), which only leaves the budget on the safe side; {zone}"
    return (
        f"does something else use the key? Does Songstats bill the {counted(month.cost_nothing, 'call')} held to cost nothing, "
        f"or its free ones? Then lower SONGSTATS_HIT_LIMIT by as many; {zone}"
    )


def _distance_outside(figure: int, low: int, high: int) -> int:
    """How far `figure` lies outside of what can be explained; 0 inside."""
    return min(figure - low, 0) or max(figure - high, 0)


def _known_or_unknown(value: int | Decimal | None) -> int | str:
    if value is None:
        return "unknown"
    return value if isinstance(value, int) else str(value)


def _signed(drift: int) -> str:
    return f"{drift:+d}"
