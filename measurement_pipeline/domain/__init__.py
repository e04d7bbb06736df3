"""The rules of the project, as pure functions and frozen values.

Standard library and pydantic only: no I/O, no clock, no environment. A rule that needs the time or a row is handed it.
"""
