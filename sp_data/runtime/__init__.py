"""What every room uses to work: child processes, jobs, threads, progress.

jobs.py            who does work that falls into jobs: threads, or other machines
subprocesses.py    child processes that cannot outlive us
prefetch.py        an iterator run ahead in a thread
progress.py        how far a stage is, for whoever looks on
contact_sheet.py   many pictures in one JPEG
"""
