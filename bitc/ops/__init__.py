"""Operators: one class each, with typed fields, type inference and an exact numpy reference."""
