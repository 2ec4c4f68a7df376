"""Where everything stands in the file of a run, as paths from its root.

``daq_core.files.layout`` makes what is there; whoever reads or mends a file looks it up here.
"""

from __future__ import annotations

ENTRY = "entry"
IDENTIFIER = "entry/entry_identifier"  # the run id, as text
START_TIME = "entry/start_time"
END_TIME = "entry/end_time"
PROGRAM = "entry/program_name"

INSTRUMENT = "entry/instrument"
DETECTOR = "entry/instrument/detector"
DETECTOR_NAME = "entry/instrument/detector/local_name"

DATA = "entry/data"  # with the images, and a column for each of ``layout.COLUMNS``
IMAGES = "entry/data/data"
IMAGE_IDS = "entry/data/image_id"
STATUS = "entry/data/status"

RUN = "entry/run"
STATE = "entry/run/state"
MESSAGE = "entry/run/message"
COUNTERS = "entry/run/counters"
PRESENT = "entry/run/present"  # in a part alone: the file over all parts has it beside the images
