"""Loopback doubles of the vendors, and a sample catalogue.

What the demo, a checkout without keys, and the tests run against. Knows nothing of the clients that
it is there to disagree with: it imports nothing from the rest of the project.
"""

from measurement_pipeline.sandbox.catalogue import SAMPLE_CSV, Known, sample_catalogue
from measurement_pipeline.sandbox.client import SandboxClient
from measurement_pipeline.sandbox.memory import MemoryFileError
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour, Scenario
from measurement_pipeline.sandbox.server import running, serve

__all__ = [
    "PLAIN",
    "SAMPLE_CSV",
    "Behaviour",
    "Known",
    "MemoryFileError",
    "SandboxClient",
    "Scenario",
    "running",
    "sample_catalogue",
    "serve",
]
