"""Pictures in and out, and where things lie in them."""
