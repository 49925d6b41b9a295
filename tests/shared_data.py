"""Where public data sets lie that may not be shipped; tests that need one are skipped without."""

import os
from pathlib import Path

DATA = Path(os.environ.get("RECDISTILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
