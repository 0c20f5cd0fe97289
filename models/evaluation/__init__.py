"""Measures a model folder through `undertone score`, and writes the measures into the card. `models/report.py` puts it together."""
