"""What several workers need, and one alone does not: a manager, a mesh, and turns at accepting."""
