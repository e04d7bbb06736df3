"""Buys the play-count history of recordings once, stores it, and never pays for it twice."""
