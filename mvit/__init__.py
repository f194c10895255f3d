"""Declarative experiments for MobileViT on MindSpore."""
