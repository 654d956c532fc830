"""A notebook backend: any DB-API database behind any notebook UI."""

__version__ = "0.1.0.dev0"
