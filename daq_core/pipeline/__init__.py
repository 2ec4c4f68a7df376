"""The receiver and the image ring of one config, as control holds them: started, read, replaced."""
