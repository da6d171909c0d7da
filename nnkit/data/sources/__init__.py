"""Where rows come from: files, folders, streams, built-in data sets."""
