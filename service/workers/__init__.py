"""For several workers only: a manager, a mesh, and turns at accepting."""
