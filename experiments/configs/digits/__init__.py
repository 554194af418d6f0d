"""Configs for handwritten digits, 8x8, which come with scikit-learn."""
