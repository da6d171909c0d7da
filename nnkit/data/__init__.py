"""From a file, a folder or a frame to encoded rows: sources, preprocessing, targets, splitting, batches."""
