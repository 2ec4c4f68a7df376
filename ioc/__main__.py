"""``python -m ioc`` is ``std-daq-ioc``."""

from ioc.cli import main

if __name__ == "__main__":
    main()
