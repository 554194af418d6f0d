"""Configs for CIFAR-10."""
