"""What every other folder uses: child processes, jobs, threads, progress.

jobs.py            who does work that is divided into jobs: threads, or other machines
web_access.py      who may ask a server of ours
subprocesses.py    child processes that cannot outlive us
prefetch.py        an iterator that runs ahead in a thread
deferred.py        imports that wait until somebody uses them
progress.py        how far a stage is, for a terminal or a log
contact_sheet.py   many pictures in one JPEG
"""
