"""Files that data are read from: their formats, their compression, their changes."""
