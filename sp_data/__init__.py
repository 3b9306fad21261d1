"""From a fandom wiki to a fine-tuned DALL-E 2: scrape, curate, shard, embed, reorder, verify, train, dream."""

__version__ = "0.1.0"
