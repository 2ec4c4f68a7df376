"""What a DAQ is in: values, events, and the one table of transitions."""
