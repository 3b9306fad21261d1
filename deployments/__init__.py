"""What runs where, and when, on a Prefect server: `sp-data deploy` makes it so.

wanted.py      the pool, queues, deployments and automations of some datasets, as the server's API takes them
reconcile.py   compares them with what the server has, and makes, changes or removes what differs
prefect.yaml   the same deployments for `prefect deploy`, for who prefers it
systemd/       server and worker as services, and their settings
Dockerfile     one image for both; compose.yaml starts them with PostgreSQL, compose.env explains its variables
kubernetes/    a fine-tuning as a Job, and the template of the Jobs that Prefect makes
"""
