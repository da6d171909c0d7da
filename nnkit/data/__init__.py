"""From a file, a folder or a frame to encoded rows: sources, preprocessing, targets, splitting, batches.

All readers raise a FileError for a file that cannot be read, a DataError for content that cannot be used, and
a ConfigError for an option that does not fit; the message names the file, the row or column, and what to do.
"""
