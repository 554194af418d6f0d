"""From the runs of a sweep to tables, CSV files and a page that compares them."""
