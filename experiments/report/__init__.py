"""The page of a run, its pictures, and the parts that other pages share."""
