"""What deploy.yaml may say: read with the place of every value, checked against the declarations and between them."""
