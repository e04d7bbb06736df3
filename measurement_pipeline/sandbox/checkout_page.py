"""The page of Stripe Checkout: a button for each payment method type of the session."""

from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.stripe_objects import StripeError, StripeObjects

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ margin: 0; min-height: 100vh; display: grid; place-items: center;
         background: #f4f5f7; color: #1f2430; font: 16px/1.5 system-ui, sans-serif; }}
  main {{ width: min(26rem, 80vw); padding: 2rem; background: #fff; border-radius: 12px;
         box-shadow: 0 2px 16px #0002; }}
  h1 {{ margin: 0 0 .5rem; font-size: 1.3rem; }}
  .card {{ margin: 1.5rem 0; padding: 1rem; border: 1px solid #d5d8de; border-radius: 8px;
          font-family: ui-monospace, monospace; }}
  button {{ width: 100%; margin-top: .5rem; padding: .8rem; border: 0; border-radius: 8px; cursor: pointer;
           background: #3d4ee0; color: #fff; font: inherit; font-weight: 600; }}
  button:focus-visible {{ outline: 3px solid #9aa5ff; outline-offset: 2px; }}
  small {{ color: #667; }}
</style>
</head>
<body><main>
<h1>{title}</h1>
{content}
<p><small>This is the sandbox. No card is charged.</small></p>
</main></body>
</html>
"""
_FORM = """<p>{what}</p>
<div class="card">4242 4242 4242 4242<br>12 / 34 &nbsp; 123</div>
<form method="post">{buttons}</form>"""
_WHAT = {
    "setup": "Saves a payment method for your account. Nothing is charged.",
    "subscription": "Saves a payment method for your account and starts the free tier.",
}
_BUTTON = '<button type="submit" name="type" value="{kind}">Save {what}</button>'
_NAMES = {"card": "card", "link": "Link", "us_bank_account": "bank account"}


class CheckoutPage:
    """The hosted page of each session, at the session's `url`."""

    def __init__(self, objects: StripeObjects, memory: Memory) -> None:
        self._objects = objects
        self._memory = memory

    def routes(self) -> list[BaseRoute]:
        """Showing the page and pressing one of its buttons."""
        return [
            Route("/checkout/{id}", self._show, methods=["GET"]),
            Route("/checkout/{id}", self._save, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        try:
            session = self._objects.session(request.path_params["id"])
        except StripeError as error:
            return _page("Nothing here", f"<p>{escape(str(error))}</p>", error.status)
        if session["status"] == "complete":
            return _page("Saved", "<p>The payment method is on file. You can close this page.</p>")
        if session["status"] == "expired":
            return _page("This link has expired", "<p>Ask for a new one.</p>", 410)
        buttons = "".join(_BUTTON.format(kind=kind, what=_NAMES[kind]) for kind in session["payment_method_types"])
        return _page("Save a payment method", _FORM.format(what=_WHAT[session["mode"]], buttons=buttons))

    async def _save(self, request: Request) -> Response:
        chosen = parse_qs((await request.body()).decode("latin-1")).get("type", [None])[0]
        try:
            with self._memory.transaction():
                session = self._objects.complete_session(request.path_params["id"], chosen)
        except StripeError as error:
            return _page("Nothing was saved", f"<p>{escape(str(error))}</p>", error.status)
        return RedirectResponse(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]), 303)


def _page(title: str, content: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(title=title, content=content), status)
