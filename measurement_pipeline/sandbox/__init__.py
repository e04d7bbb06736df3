"""Loopback doubles of the vendors, and a sample catalogue.

Used by the demo, by deployments without keys, and by tests. It imports nothing from the rest of the project, so that an error
in a client cannot hide in its double.
"""

from measurement_pipeline.sandbox.catalogue import SAMPLE_CSV, KnownRecording, sample_catalogue
from measurement_pipeline.sandbox.client import SandboxClient
from measurement_pipeline.sandbox.memory import MemoryFileError
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour, Scenario
from measurement_pipeline.sandbox.server import running, serve

__all__ = [
    "PLAIN",
    "SAMPLE_CSV",
    "Behaviour",
    "KnownRecording",
    "MemoryFileError",
    "SandboxClient",
    "Scenario",
    "running",
    "sample_catalogue",
    "serve",
]
