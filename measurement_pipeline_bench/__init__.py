"""The benchmark: the pipeline's speed, each figure beside a comparison, in one run.

`python -m measurement_pipeline_bench` runs everything on a throw-away PostgreSQL and doubles of the vendors. Each figure has a
module; `lab` holds what they share. It is not part of the wheel, and no module imports it.
"""

import warnings

# As in `measurement_pipeline.definitions`: every import of the project's jobs from here passes this module first.
warnings.filterwarnings("ignore", message="Parameter `owners`")
