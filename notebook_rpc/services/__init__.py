"""Trio and databases; knows no HTTP and no wire protocol."""
