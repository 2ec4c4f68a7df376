"""The commands that speak to a running service, by REST.

::

    commands         status, start, wait, watch, stop, config, logs, stats
    config_changes   what `config` was given: KEY=VALUE, or a file
    following        the bar of a run, until it ends
    run_lines        what is printed of a run, and whether it lost anything
    service_client   the calls, and what can go wrong with them
"""
