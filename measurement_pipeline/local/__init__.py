"""Runs a whole deployment on one machine: embedded PostgreSQL, supervised processes, and a lock against a second instance.

The commands `dev`, `demo`, `sandbox` and `api` use this package, and so do tests. A deployment with its own PostgreSQL and
process manager does not need it.
"""
