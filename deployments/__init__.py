"""What runs where, and when, on a Prefect server: `sp-data deploy` makes it so.

wanted.py      the pool, queues, deployments and automations of some datasets, as the server's API takes them
reconcile.py   compares them with what the server has, and makes, changes or removes what differs
prefect.yaml   the same deployments for `prefect deploy`, for who prefers it
"""
