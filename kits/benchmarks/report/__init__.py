"""Reports: text, plots, and the page of the documentation."""
