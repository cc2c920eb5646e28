"""Pictures of the page of the admin port, for the documentation."""
