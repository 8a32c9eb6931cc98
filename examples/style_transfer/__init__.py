"""Style transfer whose losses are weighed at run time; README.md shows it."""
