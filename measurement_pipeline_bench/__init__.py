"""The benchmark: how fast the pipeline is, each figure beside what it is compared with, in one run.

`python -m measurement_pipeline_bench` runs all of it on a throw-away PostgreSQL and doubles of the vendors. One module a figure;
`lab` has what they share. Not part of the wheel, imported by nothing.
"""

import warnings

# As in `measurement_pipeline.definitions`: whatever here loads the project's jobs comes by this module first.
warnings.filterwarnings("ignore", message="Parameter `owners`")
