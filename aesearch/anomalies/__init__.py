"""How odd images are: scores, thresholds, places."""
