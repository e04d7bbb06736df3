"""The owner of all assets, jobs, sensors and schedules, as the UI shows it."""

OWNERS = ["team:catalogue-operations"]
