"""How packets and messages come in: sockets, the compiled loop, the receiver process."""
