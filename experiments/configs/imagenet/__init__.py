"""Configs for ImageNet."""
