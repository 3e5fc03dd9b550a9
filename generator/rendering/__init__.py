"""From a checked deployment to its files, compared with each other and written."""
