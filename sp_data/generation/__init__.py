"""Pictures from words, with what made them written inside."""
