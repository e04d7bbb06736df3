"""The Dagster definitions of this environment. Dagster loads this module (workspace.yaml); nothing else imports it.

Loading needs no setting and no database. A missing setting is named when a run or a tick starts. A malformed setting and the
database of another deployment are refused at load, before anything can be spent.
"""

import os

from measurement_pipeline.defs.loading import load_definitions
from measurement_pipeline.defs.resources import services_at_launch

defs = load_definitions(services_at_launch(os.environ))
