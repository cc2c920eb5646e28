"""Metrics of the service: collected in each process, summed in the one that was started, scraped there."""
