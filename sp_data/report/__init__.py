"""What a person looks at: the run's report as an HTML page, and stages as markdown.

page.py        the page (templates/report.html.j2);  training.py and samples.py its parts, chart.py its curves
markdown.py    a stage, as a Prefect artifact shows it
"""
