"""Requests for images and the life of a job."""
