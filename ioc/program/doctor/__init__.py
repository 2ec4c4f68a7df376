"""``std-daq-ioc doctor``: what limits this machine, what cures it, and what rate it can take.

::

    command      options, output, exit code
    finding      what each look returns
    processor, memory, network, ports, rights, storage     one look each at this machine
    self_test    the simulator against the real DAQ: which rate arrives without a loss
    sender       the simulator's process in that test
"""
