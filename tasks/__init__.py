"""Thin Prefect tasks around `sp_data`, one module a stage: log, call the library, publish an artifact."""
