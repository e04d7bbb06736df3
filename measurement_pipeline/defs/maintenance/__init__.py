"""The sweep in Dagster. It crosses all slices: what a crash left behind in any of them is repaired here."""
