"""Spotify's Web API, which gives the ISRC of a track. Only this package calls it.

`client` looks tracks up, `web_api` sends the requests, `tracks` and `responses` parse what Spotify returns.
"""
