"""Figures beside what this machine allows."""
