"""Stripe, which knows whether an account has a card on file. Only this package imports `stripe`.

`payment_gate` decides and hands out checkout links, `transport` sends the requests, `responses` parses them, and `errors`
converts Stripe's exceptions. `domain/payment` defines what a decision is worth, and for how long.
"""
