"""Renders ``db/daq.ui`` with PyDM into ``docs/images/daq-screen.png``, from a service that is running.

PyDM is no package of this project: install `pydm` and `PyQt5` in an environment of its own, then

    QT_QPA_PLATFORM=offscreen python docs/make_screen_picture.py X02DA:
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydm import PyDMApplication
from pydm.display import load_file
from qtpy.QtCore import QTimer

ROOT = Path(__file__).parent.parent
CONNECTED_WITHIN_MS = 9_000


def main(prefix: str, picture: str) -> None:
    application = PyDMApplication(use_main_window=False, command_line_args=[])
    screen = load_file(str(ROOT / "db/daq.ui"), macros={"P": prefix}, target=None)
    screen.show()

    def take() -> None:
        saved = screen.grab().save(picture)
        os._exit(0 if saved else 1)  # PyDM's own end waits for its connections

    QTimer.singleShot(CONNECTED_WITHIN_MS, take)
    application.exec_()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "docs/images/daq-screen.png"))
