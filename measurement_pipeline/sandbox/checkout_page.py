"""The page that Stripe Checkout would show: one button that saves a card which does not exist."""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

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
  button {{ width: 100%; padding: .8rem; border: 0; border-radius: 8px; cursor: pointer;
           background: #3d4ee0; color: #fff; font: inherit; font-weight: 600; }}
  button:focus-visible {{ outline: 3px solid #9aa5ff; outline-offset: 2px; }}
  small {{ color: #667; }}
</style>
</head>
<body><main>
<h1>{title}</h1>
{content}
<p><small>This is the sandbox: no card exists, and nothing is charged.</small></p>
</main></body>
</html>
"""
_FORM = """<p>{what}</p>
<div class="card">4242 4242 4242 4242<br>12 / 34 &nbsp; 123</div>
<form method="post"><button type="submit">Save card</button></form>"""
_WHAT = {
    "setup": "Saves a card for your account. Nothing is charged.",
    "subscription": "Saves a card for your account and starts the free tier.",
}


class CheckoutPage:
    """The hosted page of each session, at the session's `url`."""

    def __init__(self, objects: StripeObjects) -> None:
        self._objects = objects

    def routes(self) -> list[BaseRoute]:
        """Showing the page and pressing its button."""
        return [
            Route("/checkout/{id}", self._show, methods=["GET"]),
            Route("/checkout/{id}", self._save_card, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        try:
            session = self._objects.session(request.path_params["id"])
        except StripeError as error:
            return _page("Nothing here", f"<p>{escape(str(error))}</p>", error.status)
        if session["status"] == "complete":
            return _page("Card saved", "<p>The card is on file. You can close this page.</p>")
        if session["status"] == "expired":
            return _page("This link has expired", "<p>Ask for a new one.</p>", 410)
        return _page("Save a card", _FORM.format(what=_WHAT[session["mode"]]))

    async def _save_card(self, request: Request) -> Response:
        try:
            session = self._objects.complete_session(request.path_params["id"])
        except StripeError as error:
            return _page("This card was not saved", f"<p>{escape(str(error))}</p>", error.status)
        return RedirectResponse(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]), 303)


def _page(title: str, content: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(title=title, content=content), status)
