"""The measurement database: the only package that imports psycopg.

Each module runs the .sql file of its own name. A function works on the connection that it gets. The caller owns the
transaction, unless the function's name or docstring says that it commits.
"""
