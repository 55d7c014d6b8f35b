"""A chat page and the server behind it: the model is asked through Tutelage, the page tells Tutelage what it sees."""

import argparse
from html import escape
from pathlib import Path
from string import Template

import uvicorn
from openai import AsyncOpenAI, OpenAIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from proxy.browsers import FeedbackScript, script_tag

HERE = Path(__file__).parent


def create_app(client: AsyncOpenAI, model: str, script: str) -> Starlette:
    """Return the page's server; *script* is the line that ``tutelage feedback script`` prints."""
    page = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(script=script)

    async def show(_: Request) -> Response:
        return HTMLResponse(page)

    async def code(_: Request) -> Response:
        return FileResponse(HERE / "page.js")

    async def ask(request: Request) -> Response:
        try:
            reply = await client.chat.completions.create(model=model, messages=await request.json())
        except OpenAIError as exc:
            return JSONResponse({"error": str(exc)}, status_code=502)
        return JSONResponse({"id": reply.id, "text": reply.choices[0].message.content})

    return Starlette(routes=[Route("/", show), Route("/page.js", code), Route("/ask", ask, methods=["POST"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", default="http://127.0.0.1:8484", help="where Tutelage listens")
    parser.add_argument("--model", default="gpt-5-mini")
    parser.add_argument("--key", default="", help="the page's own key, of scope feedback; none in open mode")
    parser.add_argument("--port", type=int, default=8500)
    options = parser.parse_args()
    script = script_tag(options.proxy, FeedbackScript().integrity, escape(options.key))
    client = AsyncOpenAI(base_url=f"{options.proxy}/v1")  # and OPENAI_API_KEY
    uvicorn.run(create_app(client, options.model, script), port=options.port)


if __name__ == "__main__":
    main()
