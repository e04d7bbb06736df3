"""A whole deployment on one machine: the embedded PostgreSQL, supervised processes, and the lock that allows one of each.

Used by the commands `dev`, `demo`, `sandbox` and `api`, and by tests. A deployment with its own PostgreSQL and its own process
manager uses nothing from here.
"""
