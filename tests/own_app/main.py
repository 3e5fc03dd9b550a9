"""The application of docs/own-app.md."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/healthz")
async def health() -> dict[str, bool]:
    return {"ok": True}
