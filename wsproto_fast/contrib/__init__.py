"""Integrations: each module needs the package it is named after."""
