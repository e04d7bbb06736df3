"""Callbacks: a request that ends, or needs a card, is reported to the address that it names."""
