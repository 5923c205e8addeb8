"""Operators that submit remote jobs and own them until they end."""
