"""Datasets from other tools, and for other trainers: imports/ and export/."""
