"""Trio and bytes; knows no database and no surface."""
