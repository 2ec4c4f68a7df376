"""What the faces show that the DAQ does not know."""
