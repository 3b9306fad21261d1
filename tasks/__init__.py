"""Thin Prefect tasks around `sp_data`: log, call the library, publish an artifact.

stage.py       the task of any stage in the list of stages (sp_data/pipeline.py)
retries.py     which tasks are retried, and when
ray_jobs.py    jobs of a stage as task runs on Ray
logs.py        log lines without control characters
progress.py    progress as an artifact;  reference.py what tasks and flows return
limits.py      who waits for whom;  process_name.py whether the one waited for is gone
server_process.py    the temporary server of one run
compact.py, export.py, generate.py, report.py     tasks that are not stages
"""

from tasks.logs import plain_logs

plain_logs()
