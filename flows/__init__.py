"""Prefect flows composed of `tasks`."""
