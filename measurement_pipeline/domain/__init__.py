"""The rules of the project, as pure functions and frozen values.

Standard library and pydantic only: no I/O, no clock, no environment. A rule receives the time and the rows as arguments.
"""
