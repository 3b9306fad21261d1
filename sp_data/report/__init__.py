"""What a person looks at: contact sheets and the run's page. Data in, pictures and HTML out."""
