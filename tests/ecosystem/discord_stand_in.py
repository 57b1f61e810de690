"""A stand-in for Discord with one bot, one server and one channel: the gateway's WebSocket and a bit of REST.

It greets, beats, counts events, keeps them for a session that is resumed, and speaks zlib as Discord does.
`drop` cuts the connection without a word; `refuse_next` makes the next requests meet the rate limit.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSCloseCode, web

TOKEN = "token of the bot"
SESSION = "session-1"
BOT = {"id": "1", "username": "bot", "discriminator": "0", "avatar": None, "bot": True}
ANN = {"id": "2", "username": "ann", "discriminator": "0", "avatar": None}
SERVER = "10"
CHANNEL = "20"


class StandIn:
    """The gateway and what the bot has sent."""

    def __init__(self) -> None:
        self.address = ""
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sessions: list[str] = []
        self.beats = asyncio.Semaphore(0)
        self.close_codes: asyncio.Queue[int | None] = asyncio.Queue()
        self.refuse_next = 0
        self._events: list[dict[str, Any]] = []
        self._connection: Connection | None = None
        self._last_message = 100

    async def event(self, name: str, data: dict[str, Any]) -> None:
        """Send an event; one that cannot be sent now waits for the session to be resumed."""
        self._events.append({"op": 0, "t": name, "s": len(self._events) + 1, "d": data})
        if self._connection is not None:
            await self._connection.send(self._events[-1])

    async def say(self, text: str) -> None:
        """Let Ann say something in the channel."""
        await self.event("MESSAGE_CREATE", {**self._message(ANN, text), "member": _member(ANN)})

    def drop(self) -> None:
        """Cut the connection."""
        assert self._connection is not None
        self._connection.request.transport.abort()
        self._connection = None

    async def gateway(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection of the bot."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(request, socket)
        await connection.send({"op": 10, "d": {"heartbeat_interval": 100}})
        async for message in socket:
            data = json.loads(message.data)
            match data["op"]:
                case 1:
                    await connection.send({"op": 11, "d": None})
                    self.beats.release()
                case 2 | 6 if data["d"]["token"] != TOKEN:
                    await socket.close(code=4004)
                case 2:
                    self.sessions.append("identified")
                    self._connection = connection
                    await self._introduce()
                case 6:
                    assert data["d"]["session_id"] == SESSION
                    self.sessions.append(f"resumed after {data['d']['seq']} of {len(self._events)}")
                    for missed in self._events[data["d"]["seq"] :]:
                        await connection.send(missed)
                    self._connection = connection
                    await self.event("RESUMED", {})
        self.close_codes.put_nowait(socket.close_code)
        return socket

    async def _introduce(self) -> None:
        resume = {
            "session_id": SESSION,
            "resume_gateway_url": self.address.replace("http", "ws") + "/gateway",
        }
        application = {"id": "5", "flags": 0}
        ready = {
            "v": 10,
            "user": BOT,
            "application": application,
            "guilds": [{"id": SERVER, "unavailable": True}],
        }
        await self.event("READY", {**ready, **resume})
        channel = {"id": CHANNEL, "type": 0, "name": "general", "position": 0, "permission_overwrites": []}
        everyone = {"id": SERVER, "name": "@everyone", "permissions": "0", "position": 0, "color": 0}
        everyone |= {"hoist": False, "managed": False, "mentionable": False, "flags": 0}
        server = {"id": SERVER, "name": "the server", "owner_id": ANN["id"], "roles": [everyone]}
        members = {"channels": [channel], "members": [_member(BOT), _member(ANN)], "member_count": 2}
        await self.event("GUILD_CREATE", {**server, **members})

    def _message(self, author: dict[str, Any], text: str) -> dict[str, Any]:
        self._last_message += 1
        where = {"id": str(self._last_message), "channel_id": CHANNEL, "guild_id": SERVER}
        lists: dict[str, Any] = {"mentions": [], "mention_roles": [], "attachments": [], "embeds": []}
        flags = {
            "tts": False,
            "mention_everyone": False,
            "pinned": False,
            "type": 0,
            "edited_timestamp": None,
        }
        when = {"timestamp": "2024-02-29T00:00:00+00:00"}
        return {**where, **lists, **flags, **when, "author": author, "content": text}

    async def rest(self, request: web.Request) -> web.Response:
        """Answer one request of the bot."""
        if request.headers.get("Authorization") != f"Bot {TOKEN}":
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        match request.method, request.path.removeprefix("/api"):
            case "GET", "/users/@me":
                return _json(BOT)
            case "GET", "/oauth2/applications/@me":
                about = {"id": "5", "name": "app", "description": "", "icon": None, "rpc_origins": None}
                more = {"bot_public": True, "bot_require_code_grant": False, "verify_key": "", "owner": ANN}
                return _json({**about, **more, "team": None, "summary": ""})
            case "POST", "/channels/20/messages":
                message = await _posted(request)
                if self.refuse_next:
                    self.refuse_next -= 1
                    refusal = {"message": "slow down", "retry_after": 0.02, "global": False}
                    return _json(refusal, status=429)
                self.received.put_nowait(message)
                return _json(self._message(BOT, message.get("content") or ""))
            case "POST", "/channels/20/typing":
                return web.Response(status=204)
        return _json({"message": f"unknown {request.path}", "code": 0}, status=404)


class Connection:
    """One connection of the gateway, with its compressor."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket
        is_zlib = request.query.get("compress") == "zlib-stream"
        self.compressor = zlib.compressobj() if is_zlib else None

    async def send(self, payload: dict[str, Any]) -> None:
        text = json.dumps(payload)
        if self.compressor is None:
            await self.socket.send_str(text)
        else:
            data = self.compressor.compress(text.encode())
            await self.socket.send_bytes(data + self.compressor.flush(zlib.Z_SYNC_FLUSH))


@asynccontextmanager
async def discord_stand_in() -> AsyncIterator[StandIn]:
    """Serve on the running loop."""
    stand_in = StandIn()
    application = web.Application(client_max_size=1 << 26)
    application.router.add_get("/gateway/", stand_in.gateway)
    application.router.add_get("/gateway", stand_in.gateway)
    application.router.add_route("*", "/api/{path:.*}", stand_in.rest)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand_in
    finally:
        if stand_in._connection is not None:
            await stand_in._connection.socket.close(code=WSCloseCode.GOING_AWAY)
        await runner.cleanup()


def _json(data: Any, status: int = 200) -> web.Response:
    # The library knows JSON by exactly this type, and takes a refusal without "Via" for that of a proxy.
    headers = {"Content-Type": "application/json", "Via": "1.1 stand-in"}
    return web.Response(body=json.dumps(data).encode(), status=status, headers=headers)


def _member(user: dict[str, Any]) -> dict[str, Any]:
    joined = {"joined_at": "2024-01-01T00:00:00+00:00", "roles": [], "nick": None}
    return {"user": user, **joined, "deaf": False, "mute": False, "flags": 0}


async def _posted(request: web.Request) -> dict[str, Any]:
    if request.content_type != "multipart/form-data":
        return dict(await request.json())
    form = await request.post()
    message = json.loads(str(form["payload_json"]))
    files = [field.file.read() for field in form.values() if isinstance(field, web.FileField)]
    return {**message, "files": files}
