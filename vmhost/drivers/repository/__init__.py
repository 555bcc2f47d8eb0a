"""Repositories of backups on a file system (docs/decisions: the repository)."""
