"""`wsbundle import`: a deploy.yaml for what was set up by hand, from its own files, and an account of every line."""
