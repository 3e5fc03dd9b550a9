"""What developers run: documents derived from declarations, golden bundles recorded. Not part of what is installed."""
