"""CPU time and memory of the processes that a benchmark starts."""

import psutil


def cpu_seconds(pid: int) -> float:
    """The CPU time so far of a process and its descendants, ended ones included where the system counts them."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += (
            times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        )
    return total


def server_cpu_seconds(backend_pid: int) -> float:
    """The CPU time so far of the PostgreSQL server to which a session belongs."""
    return cpu_seconds(psutil.Process(backend_pid).ppid())


def largest_run_mb(code_server: int) -> float:
    """The resident memory of the largest run, in MB: runs are children of the code server's inner process."""
    largest = 0
    try:
        runs = [run for inner in psutil.Process(code_server).children() for run in inner.children(recursive=True)]
        for run in runs:
            largest = max(largest, run.memory_info().rss)
    except psutil.NoSuchProcess:  # it ended meanwhile
        pass
    return largest / 1e6
