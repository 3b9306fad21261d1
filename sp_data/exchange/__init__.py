"""Datasets from other tools (imports/) and for other trainers (export/)."""
