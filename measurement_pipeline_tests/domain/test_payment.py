"""Decisions of the payment gate."""

from datetime import date, timedelta

import pytest

from measurement_pipeline.domain.payment import (
    ALLOWED_VALID_FOR,
    CHECKOUT_MARGIN,
    NO_CARD,
    NOT_A_CARD,
    SAVE_A_CARD,
    SUBSCRIBE,
    Decision,
    PaymentMethods,
    PaymentVerdict,
    SavedCard,
    no_card_reason,
)


def test_unknown_is_a_separate_verdict() -> None:
    assert [verdict.value for verdict in PaymentVerdict] == ["allowed", "denied", "unknown"]


def test_an_allowed_decision_stays_valid_for_ten_minutes() -> None:
    assert timedelta(minutes=10) == ALLOWED_VALID_FOR


def test_a_link_is_not_returned_in_its_last_minutes() -> None:
    assert timedelta(minutes=10) <= CHECKOUT_MARGIN < timedelta(hours=24)


def test_a_denial_names_the_missing_card_and_the_next_step() -> None:
    assert "card" in NO_CARD
    assert "checkout link" in SAVE_A_CARD
    assert "30 days of trial" in SUBSCRIBE.format(days=30)


VALID, EXPIRED = SavedCard(2026, 11), SavedCard(2026, 10)


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ([], NO_CARD),
        ([PaymentMethods([])], NO_CARD),
        ([PaymentMethods([], has_default=True)], NOT_A_CARD),
        ([PaymentMethods([], has_default=True), PaymentMethods([VALID])], None),
        ([PaymentMethods([EXPIRED, VALID])], None),
        (
            [PaymentMethods([], has_default=True), PaymentMethods([EXPIRED], has_default=True)],
            "No valid card is on file for this account: the newest one expired in 10/2026.",
        ),
    ],
)
def test_an_expired_card_does_not_count(methods: list[PaymentMethods], reason: str | None) -> None:
    assert no_card_reason(methods, today=date(2026, 11, 30)) == reason


def test_decisions_are_compared_by_content() -> None:
    assert Decision(PaymentVerdict.DENIED, NO_CARD) == Decision(PaymentVerdict.DENIED, NO_CARD)
