"""Thin Prefect tasks around `sp_data`: log, call the library, publish an artifact.

stage.py       the task of any stage in the list of stages (sp_data/pipeline.py);  stages.py a run's stages, in turn
retries.py     which tasks are retried, and when
ray_jobs.py    jobs of a stage as task runs on Ray
logs.py        log lines without control characters;  plain_log.py a run's log without tracebacks of our own errors
progress.py    progress as an artifact;  reference.py what tasks and flows return
limits.py      who waits for whom;  process_name.py whether the one waited for is gone
follow_up.py   what a change of a dataset leads to;  summary.py what an operator sees of a run
server_process.py    the temporary server of one run
compact.py, export.py, generate.py, report.py, upkeep.py     tasks that are not stages
"""

from tasks.logs import plain_logs

plain_logs()
