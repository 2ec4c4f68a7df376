"""The std_daq face: the REST routes and Redis streams that std_daq's clients know.

It calls the one door, :class:`daq_core.control.door.Door`, and renders its snapshots; it
keeps no state of its own and knows nothing of Channel Access.
"""
