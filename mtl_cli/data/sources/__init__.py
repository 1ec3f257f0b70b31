"""Where rows come from: one file per source, registered under the file's name."""
