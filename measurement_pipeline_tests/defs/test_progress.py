"""Progress lines of a run."""

from measurement_pipeline.defs.backfill.progress import ProgressLog


def test_a_line_is_logged_every_few_seconds_and_no_more():
    seconds = iter(range(100))
    lines = list[str]()
    progress = ProgressLog(lines.append, every_seconds=5.0, clock=lambda: float(next(seconds)))
    for shown in range(12):
        progress.show(lambda shown=shown: f"line {shown}")
    assert lines == ["line 4", "line 9"]
