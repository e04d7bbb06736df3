"""The words of the payment gate."""

from datetime import timedelta

from measurement_pipeline.domain.payment import (
    ALLOWED_SERVES,
    CHECKOUT_MARGIN,
    NO_CARD,
    SAVE_A_CARD,
    SUBSCRIBE,
    Decision,
    Verdict,
)


def test_unknown_is_a_verdict_of_its_own() -> None:
    assert [verdict.value for verdict in Verdict] == ["allowed", "denied", "unknown"]


def test_an_allowed_decision_serves_for_ten_minutes() -> None:
    assert timedelta(minutes=10) == ALLOWED_SERVES


def test_a_link_is_not_handed_out_in_its_last_minutes() -> None:
    assert timedelta(minutes=10) <= CHECKOUT_MARGIN < timedelta(hours=24)


def test_a_refusal_says_what_is_missing_and_what_to_do() -> None:
    assert "card" in NO_CARD
    assert "checkout link" in SAVE_A_CARD
    assert "30 days of trial" in SUBSCRIBE.format(days=30)


def test_decisions_compare_by_what_they_say() -> None:
    assert Decision(Verdict.DENIED, NO_CARD) == Decision(Verdict.DENIED, NO_CARD)
