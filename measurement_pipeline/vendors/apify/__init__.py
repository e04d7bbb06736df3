"""Apify, the vendor of current play counts. Only this package calls it.

`client` starts and reads runs of the actor, `web_api` sends the requests and classifies errors, `runs` and `items` parse
responses. Callers decide whether a run may be started and what happens to its result.
"""
