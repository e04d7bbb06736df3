"""Why the backfill buys nothing now: an ordered list of blockers, and the text of each. Pure.

The sensor, the run, the stall check and the command line take their texts from here. `postgres/health.read_backfill_state` reads
the state. `health/stall_checks` adds what only Dagster knows (a stopped sensor, a failing run), and the order of all is here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from measurement_pipeline.domain.purchase_pause import PurchasePause
from measurement_pipeline.domain.text import counted, utc, utc_minute
from measurement_pipeline.domain.vendor_state import Budget, VendorState

QUOTA_USED = "Songstats quota used"
NO_PAYER = "no payment method: no account that requested it has a valid card"
CAP_USED = "the account's own hit limit (accounts.monthly_hit_cap) is used"
ACCOUNT_PAUSED = "an operator paused the accounts that requested it"
CLOSED_BY_ANOTHER_RUN = "the circuit breaker opened, or a pause began, in another run"

# What closes a breaker, by its kind.
BREAKER_NEXT_STEP = {
    "key": (
        "Correct SONGSTATS_API_KEY. The hourly `backfill_reclaim` run then closes the breaker; `measurement-pipeline reclaim` "
        "does so at once."
    ),
    "drift": (
        "Compare the answer with earlier ones (`songstats_responses`). If the figures are read correctly, run "
        "`measurement-pipeline breaker close`; otherwise wait for a version that reads the new form."
    ),
    "streak": (
        "Find out what changed, then run `measurement-pipeline breaker close`. Run `measurement-pipeline requeue --suspect` for "
        "the rows that were settled meanwhile; --rebuy buys malformed responses again."
    ),
}


class BlockerKind(StrEnum):
    """What keeps backfill, intake or captures from their work, in order of precedence.

    First what needs a person, then what ends without one, then what may only look like a cause, then normal operation.
    """

    DAEMON = "daemon without heartbeat"
    SENSOR_OFF = "sensor stopped"
    SENSOR_FAILS = "sensor failing"
    OPERATOR_PAUSE = "paused by an operator"
    BREAKER = "breaker open"
    PAYMENT = "payment"
    SLOT = "pool slot held"
    VENDOR = "vendor away"
    BUDGET = "budget spent"
    PAUSE = "vendor pause"
    CAP = "account cap"
    FAILING_RUNS = "runs failing"
    RETRIES = "retries"
    DEFERRED = "deferred"
    STRIPE = "not answered"
    PARTLY_UNPAID = "partly unpaid"
    UNKNOWN = "unknown"
    IN_PROGRESS = "in progress"
    RUNS_IN_FLIGHT = "runs in flight"
    NOTHING_DUE = "nothing due"


_ORDER = list(BlockerKind)
_NORMAL = frozenset({BlockerKind.IN_PROGRESS, BlockerKind.RUNS_IN_FLIGHT, BlockerKind.NOTHING_DUE})


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason: `cause` is a sentence with the figures, `next_step` one for the operator.

    `ends_at`: when it ends without a person. None: unknown, or never.
    """

    kind: BlockerKind
    cause: str
    next_step: str = ""
    ends_at: datetime | None = None

    @property
    def is_normal(self) -> bool:
        """Whether this is normal operation: work is under way, or there is none."""
        return self.kind in _NORMAL


@dataclass(frozen=True, slots=True)
class Backlog:
    """The open recordings (pending or in progress) that an accepted request or an operator wants.

    `payable`: an account with a saved card pays. `ready`: payable, and not waiting for a retry. `in_progress`: claimed by a run.
    `unpaid_accounts`: the first few accounts without a card, if nothing is payable. `paused`: not payable, because an operator
    paused the accounts of `account_pauses`.
    """

    waiting: int
    payable: int
    ready: int
    in_progress: int
    oldest_waiting: datetime | None
    next_retry_at: datetime | None
    last_error: str | None
    last_settled: datetime | None
    now: datetime
    unpaid_accounts: tuple[str, ...] = ()
    paused: int = 0
    account_pauses: tuple[PurchasePause, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillState:
    """What decides whether the backfill may buy, and whether there is anything to buy."""

    vendor: VendorState
    budget: Budget
    backlog: Backlog


def backfill_blockers(state: BackfillState) -> list[Blocker]:
    """All blockers in order of precedence; empty if a recording can be bought now."""
    return in_order([*call_blockers(state.vendor, state.budget), *_backlog_blockers(state.backlog)])


def call_blockers(vendor: VendorState, budget: Budget) -> list[Blocker]:
    """The blockers that stop every call to Songstats, whatever waits: breaker, pause, budget."""
    found = vendor_blockers(vendor)
    used = budget_blocker(budget)
    return in_order(found if used is None else [*found, used])


def vendor_blockers(vendor: VendorState) -> list[Blocker]:
    """The blockers that the breaker and the pauses are."""
    found = [] if vendor.operator_pause is None else [operator_pause_blocker(vendor.operator_pause)]
    if vendor.breaker == "open":
        opened = "" if vendor.opened_at is None else f" since {utc_minute(vendor.opened_at)}"
        next_step = BREAKER_NEXT_STEP[vendor.breaker_kind or "streak"]
        found.append(Blocker(BlockerKind.BREAKER, f"Circuit breaker open{opened}: {vendor.reason}.", next_step))
    outage = vendor_outage(vendor)
    if outage is not None and vendor.paused_until is not None:
        found.append(outage)
    if outage is None and vendor.paused_until is not None:
        next_step = "Wait, or end the pause with `measurement-pipeline breaker close`."
        found.append(Blocker(BlockerKind.PAUSE, _describe_pause(vendor), next_step, ends_at=vendor.paused_until))
    return found


def operator_pause_blocker(pause: PurchasePause, *, detail: str = "") -> Blocker:
    """The blocker for a pause that an operator began."""
    return Blocker(BlockerKind.OPERATOR_PAUSE, f"{pause.cause}{detail}", pause.next_step, ends_at=pause.paused_until)


def budget_blocker(budget: Budget) -> Blocker | None:
    """The blocker for a budget without a hit left."""
    if budget.left:
        return None
    if budget.next_hit_frees_at is None:
        cause = "Songstats quota is 0 hits: SONGSTATS_HIT_LIMIT minus SONGSTATS_HIT_RESERVE allows none."
        return Blocker(BlockerKind.BUDGET, cause, "Raise SONGSTATS_HIT_LIMIT.")
    next_hit = utc_minute(budget.next_hit_frees_at)
    cause = (
        f"{QUOTA_USED}: {budget.hits:,} of {budget.allowed:,} hits in the last 30 days. Next hit available {next_hit}."
    )
    next_step = "Wait, or buy a larger plan and raise SONGSTATS_HIT_LIMIT."
    return Blocker(BlockerKind.BUDGET, cause, next_step, ends_at=budget.next_hit_frees_at)


def vendor_outage(vendor: VendorState) -> Blocker | None:
    """The blocker for pause after pause, which is an outage of the vendor rather than one pause that it asked for.

    Also between two pauses: a probe ends each of them, and nothing has changed.
    """
    if vendor.pauses_in_a_row <= 1:
        return None
    pause = "The next call is due." if vendor.paused_until is None else _describe_pause(vendor)
    cause = f"Songstats gives no usable response: {vendor.pauses_in_a_row} pauses in a row. {pause}"
    next_step = "Check the status of Songstats and the network between it and this machine."
    return Blocker(BlockerKind.VENDOR, cause, next_step)


def runs_in_flight(*, covered: int, due: int) -> Blocker:
    """The blocker for due recordings that queued or running runs cover already."""
    cause = f"Waiting: {covered:,} of {due:,} due recordings are already covered by queued or running runs."
    return Blocker(BlockerKind.RUNS_IN_FLIGHT, cause)


def capped_accounts(count: int, *, due: int) -> Blocker:
    """The blocker for due recordings of accounts whose own hit limit is used."""
    accounts = counted(count, "account that requests them has", "accounts that request them have")
    cause = f"Account limit used: {counted(due, 'recording is', 'recordings are')} due, and the {accounts} no hit left."
    next_step = "Wait until hits of the last 30 days expire, or raise accounts.monthly_hit_cap."
    return Blocker(BlockerKind.CAP, cause, next_step)


def queued_runs(count: int) -> Blocker:
    """The blocker for queued runs: the next plan uses what is known once they have started."""
    return Blocker(
        BlockerKind.RUNS_IN_FLIGHT, f"Waiting: {counted(count, 'queued run has', 'queued runs have')} not started yet."
    )


def in_order(blockers: Iterable[Blocker]) -> list[Blocker]:
    """The blockers in order of precedence."""
    return sorted(blockers, key=lambda blocker: _ORDER.index(blocker.kind))


def describe(blocker: Blocker) -> str:
    """The blocker as one text: cause, then next step."""
    return f"{blocker.cause} {blocker.next_step}".strip()


def describe_all(blockers: Sequence[Blocker]) -> str:
    """Several blockers as one text; what is normal operation only if there is nothing else."""
    problems = [blocker for blocker in blockers if not blocker.is_normal]
    return " ".join(describe(blocker) for blocker in problems or blockers)


def _backlog_blockers(backlog: Backlog) -> list[Blocker]:
    if not backlog.waiting:
        return [Blocker(BlockerKind.NOTHING_DUE, "No recording waits to be bought.")]
    paused = _account_pauses(backlog)
    if not backlog.payable and backlog.paused == backlog.waiting:
        return paused
    if not backlog.payable:
        waiting = counted(backlog.waiting, "waiting recording")
        cause = f"No payment method: no account with a saved card requests any of {waiting}."
        who = ", ".join(backlog.unpaid_accounts)
        next_step = (
            f"Ask for a card: account {who}."
            if who
            else "Save a card for the operators' account (BACKFILL_ACCOUNT_ID)."
        )
        return [*paused, Blocker(BlockerKind.PAYMENT, cause, next_step)]
    if backlog.ready > backlog.in_progress:
        return []
    found = paused
    retries = _describe_retries(backlog)
    if backlog.ready:
        cause = (
            f"{counted(backlog.in_progress, 'recording is', 'recordings are')} in progress in a run. {retries}".strip()
        )
        found.append(Blocker(BlockerKind.IN_PROGRESS, cause))
    elif retries:
        found.append(Blocker(BlockerKind.RETRIES, retries))
    if backlog.waiting > backlog.payable + backlog.paused:
        unpaid = (
            f"{backlog.waiting - backlog.payable - backlog.paused:,} of {counted(backlog.waiting, 'waiting recording')}"
        )
        cause = f"No payment method for {unpaid}."
        found.append(Blocker(BlockerKind.PARTLY_UNPAID, cause, "Ask the accounts that requested them for a card."))
    return found


def _account_pauses(backlog: Backlog) -> list[Blocker]:
    held = f" It holds {backlog.paused:,} of {counted(backlog.waiting, 'waiting recording')}."
    return [
        operator_pause_blocker(pause, detail=held if len(backlog.account_pauses) == 1 else "")
        for pause in backlog.account_pauses
        if backlog.paused
    ]


def _describe_retries(backlog: Backlog) -> str:
    count = backlog.payable - backlog.ready
    if not count or backlog.next_retry_at is None:
        return ""
    error = f" Last error: {backlog.last_error}" if backlog.last_error else ""
    wait = counted(count, "recording waits", "recordings wait")
    return f"{wait} for a retry, the next at {utc_minute(backlog.next_retry_at)}.{error}"


def _describe_pause(vendor: VendorState) -> str:
    if vendor.paused_until is None:
        raise ValueError("there is no pause to describe")
    probe = " `GET /status` is called regularly and can end it earlier." if vendor.is_probe_allowed else ""
    return f"Calls to Songstats paused until {utc(vendor.paused_until)}: {vendor.pause_reason or 'no reason recorded'}.{probe}"
