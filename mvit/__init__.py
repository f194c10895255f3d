"""Declarative experiments for MobileViT on MindSpore."""

__version__ = "0.1.0"
