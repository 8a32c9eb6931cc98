"""Measure the codec on real files: rate and quality, speed, memory, complexity."""
