"""What the kernel gives: sockets, users, urgency, a thread for slow disks."""
