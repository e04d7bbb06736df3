"""Apify, the vendor of today's play counts: the only package that talks to it, and where its words stop.

`client` starts a run of the actor and fetches what it found, `items` reads that, `errors` says how a call ended without an
answer. Whether a run may be started, and what becomes of what it found, is decided elsewhere.
"""
