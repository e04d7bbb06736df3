"""The Dagster definitions of this environment. Dagster loads this module (workspace.yaml); nothing else imports it.

Loading works without settings and without a reachable database. A missing setting is named when a run or a tick starts. A
malformed setting is refused at load. If all required settings are present, loading connects to the database once and refuses
the database of another deployment, before anything can be spent.
"""

import os

from measurement_pipeline.defs.loading import load_definitions
from measurement_pipeline.defs.resources import services_at_launch
from measurement_pipeline.defs.tick_wait import DAEMON_TICK_SECONDS

defs = load_definitions(services_at_launch(os.environ), tick_seconds=DAEMON_TICK_SECONDS)
