"""Payment: has an account a card on file? The only package that imports stripe.

`gate` asks, and hands out a checkout link, through `transport`; `stripe_errors` says in plain words
why Stripe did not answer. What an answer is worth, and for how long, is `domain/payment`.
"""
