"""The dashboard: `app-jobs web`, or create_app() for an ASGI server of your own."""

from app_jobs.errors import BadArgument

try:
    from app_jobs.web._app import Access, create_app, serve
except ModuleNotFoundError as missing:
    raise BadArgument(
        f"the dashboard needs the extra web ({missing.name} is missing)",
        hint="pip install 'app-jobs[web]'",
    ) from None

__all__ = ["Access", "create_app", "serve"]
