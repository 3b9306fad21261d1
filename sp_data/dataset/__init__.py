"""From originals to a verified dataset: curate, shards, embeddings, reorder, verify."""
