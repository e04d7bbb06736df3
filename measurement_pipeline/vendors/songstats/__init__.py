"""Songstats, the vendor of play-count histories. Only this package calls it.

`client` makes one call, `response` holds its response or failure, `historic_stats` classifies it, `points` parses the
history, and `status` the usage of the month. Callers decide whether a call may be made, and update the queue row.
"""
