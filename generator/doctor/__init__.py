"""`wsbundle doctor`: whether a host does what deploy.yaml says, as it looks from outside."""
