"""The dashboard: `app-jobs web`, or create_app() for an ASGI server of your own."""

from app_jobs.web._app import Access, create_app, serve

__all__ = ["Access", "create_app", "serve"]
