"""What developers run: documents derived from declarations, golden bundles recorded. No part of what is installed."""
