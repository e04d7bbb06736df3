"""The measurement database: the only package that imports psycopg.

Each module runs the .sql file of its own name. A function takes the connection it is to work on; whoever calls it owns the
transaction, unless the function's name or docstring says that it commits.
"""
