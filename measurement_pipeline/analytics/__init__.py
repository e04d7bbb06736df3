"""What is made of the analysts' views for people: charts, a page, files. Knows no Dagster, and reads the views alone."""
