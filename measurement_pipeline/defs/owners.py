"""Who answers for the project's assets, jobs, sensors and schedules, as the UI shows it."""

OWNERS = ["team:catalogue-operations"]
