"""Reproducible benchmarks. ``make bench`` runs all of them; each prints one JSON line per measurement."""
