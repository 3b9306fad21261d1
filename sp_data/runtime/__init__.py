"""What every other folder uses: child processes, jobs, threads, progress.

jobs.py            who does work that is divided into jobs: threads, or other machines
web_access.py      who may ask a server of ours
subprocesses.py    child processes that cannot outlive us
bounded.py         calls in a child that the kernel stops after some seconds
prefetch.py        an iterator that runs ahead in a thread
deferred.py        imports that wait until somebody uses them
progress.py        how far a stage is, for a terminal or a log
contact_sheet.py   many pictures in one JPEG
"""
