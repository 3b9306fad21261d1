"""What a person looks at: contact sheets and the run's page. Data in, pictures and HTML out.

page.py        the page (templates/report.html.j2);  training.py and samples.py its parts, chart.py its curves
markdown.py    a stage as a Prefect artifact shows it
"""
