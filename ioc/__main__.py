"""``python -m ioc`` is ``std-daq-ioc``."""

from ioc.program.main import main

if __name__ == "__main__":
    main()
