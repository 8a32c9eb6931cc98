"""Style transfer with sliders; see README.md."""
