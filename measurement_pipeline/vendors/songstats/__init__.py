"""Songstats, the vendor of histories: the only package that talks to it, and where its words stop.

`client` makes one call and says what came back, `answer` is what came back, `historic_stats` says
what it means. Whether a call may be made, and what becomes of the row, is decided elsewhere.
"""
