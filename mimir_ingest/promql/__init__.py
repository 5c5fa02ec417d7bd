"""Lexer, parser, printer, planner and the columnar engine."""
