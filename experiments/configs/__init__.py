"""One file for each reported run; `default` documents every field."""
