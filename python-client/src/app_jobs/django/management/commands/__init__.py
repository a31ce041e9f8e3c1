"""Console commands of Django."""
