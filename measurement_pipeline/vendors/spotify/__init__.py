"""Spotify's Web API, which says whose ISRC a track has: the only package that talks to it, and where its words stop.

`client` looks tracks up, `tracks` reads what a track object says. What is done with it is decided elsewhere.
"""
