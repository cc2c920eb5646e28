"""How much CPU time, delay and memory this product and its alternatives take: ``make bench``."""
