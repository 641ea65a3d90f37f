"""The JSON Schemas, importable so that the code validates against the very files the docs show."""
