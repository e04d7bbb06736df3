"""Clients of the outside services: Songstats, Stripe, Apify, Spotify and the alert webhook.

`http` sends one request under limits that hold for every vendor, `errors` has the error hierarchy of all vendors, and
`credentials` the result of a credential check. Each vendor's package knows that vendor's URLs, error bodies and field names;
nothing else does. Callers decide whether a call may be made.
"""
