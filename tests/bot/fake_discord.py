"""A Discord on one loopback port: as much of its REST interface and gateway as a bot meets, with its rules.

It keeps every message, refuses what Discord refuses (too long, empty), takes a nonce once, tells the bot of its own
messages and reactions as Discord does, and on RESUME delivers *all* events of the session again, also those that came
through: a bot that trusts the gateway would answer twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

TOKEN = "a-token-of-the-fake"
BOT, ALICE, BERT, OTHER_BOT = "100700000000000001", "200700000000000002", "200700000000000003", "300700000000000004"
GUILD, CHANNEL, DM, SILENT = "10", "20", "30", "40"  # the bot may not read back what SILENT says
THREAD = "50"  # of CHANNEL
TIME = "2026-01-01T00:00:00.000000+00:00"
TIMEOUT_S = 20.0

Json = dict[str, Any]


def user(id_: str) -> Json:
    """A user; a person's id begins with 2."""
    return {
        "id": id_,
        "username": f"user{id_}",
        "discriminator": "0",
        "global_name": None,
        "avatar": None,
        "bot": not id_.startswith("2"),
    }


def member(id_: str) -> Json:
    """What events of a guild say of a user beside that."""
    return {"roles": [], "joined_at": TIME, "deaf": False, "mute": False, "flags": 0}


class FakeDiscord:
    """Start it with `async with`; `say`, `react` and `drop` are what people and networks do to a bot."""

    def __init__(self) -> None:
        self.messages: dict[str, Json] = {}
        self.reactions: list[tuple[str, str]] = []  # (message id, emoji) that the bot added
        self.identified = self.resumed = 0
        self.lose_replies = 0  # so many messages are taken, and the connection broken before the bot hears of it
        self.refuse = False  # messages of the bot
        self.tell_author = True  # of a message that is reacted to
        self.posts = 0  # messages that the bot sent, also those that were not taken
        self._deleted: set[str] = set()
        self._next_id = 1_000
        self._nonces: dict[str, str] = {}
        self._session: str | None = None
        self._events: list[Json] = []  # of the session
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> FakeDiscord:
        app = web.Application()
        api = "/api/v10"
        app.add_routes(
            [
                web.get(f"{api}/users/@me", self._me),
                web.get(f"{api}/oauth2/applications/@me", self._application),
                web.get(f"{api}/channels/{{channel}}/messages", self._history),
                web.post(f"{api}/channels/{{channel}}/messages", self._post),
                web.get(f"{api}/channels/{{channel}}/messages/{{message}}", self._message),
                web.put(f"{api}/channels/{{channel}}/messages/{{message}}/reactions/{{emoji}}/@me", self._put_reaction),
                web.get("/gateway", self._gateway),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    # What people do

    def say(self, text: str, *, author: str = ALICE, channel: str = CHANNEL, **fields: Any) -> str:
        """Somebody writes a message; its id. It is kept, and told to the bot if the bot is there or resumes."""
        message = self._keep(channel, author, text, **fields)
        self._dispatch("MESSAGE_CREATE", self._told(message))
        return str(message["id"])

    def react(self, message_id: str, emoji: str, *, author: str = ALICE) -> None:
        """Somebody adds a reaction."""
        message = self.messages[message_id]
        data = {
            "user_id": author,
            "channel_id": message["channel_id"],
            "message_id": message_id,
            "emoji": {"id": None, "name": emoji},
            "burst": False,
            "type": 0,
        }
        if self.tell_author:
            data["message_author_id"] = message["author"]["id"]
        if message["channel_id"] != DM:
            data |= {"guild_id": GUILD, "member": member(author) | {"user": user(author)}}
        self._dispatch("MESSAGE_REACTION_ADD", data)

    def delete(self, message_id: str) -> None:
        """A message is gone; the bot is not told, as it did not ask to be."""
        self._deleted.add(message_id)

    def drop(self) -> None:
        """The gateway's connections break, without a word of goodbye."""
        for transport in self._sockets.values():
            transport.abort()
        self._sockets.clear()

    async def close_for_good(self, code: int) -> None:
        """Discord ends the connection with a code that allows no return."""
        for socket in list(self._sockets):
            await socket.close(code=code)

    def forget_session(self) -> None:
        """A session that is asked to be resumed is gone."""
        self._session = None

    # What tests see

    def of_bot(self, channel: str = CHANNEL) -> list[Json]:
        """The bot's messages in a channel, oldest first."""
        return [m for m in self.messages.values() if m["author"]["id"] == BOT and m["channel_id"] == channel]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds`, which is asked again at each thing that happens here."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(holds), TIMEOUT_S)

    # REST

    async def _me(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bot {TOKEN}":
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        return _json(user(BOT))

    async def _application(self, _: web.Request) -> web.Response:
        team = {"bot_public": True, "bot_require_code_grant": False, "rpc_origins": [], "summary": "", "team": None}
        more = {"description": "", "icon": None, "verify_key": "0", "flags": 0, "owner": user(ALICE)}
        return _json({"id": "1", "name": "fake"} | team | more)

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        content = str(body["content"]).strip()
        self.posts += 1
        if self.refuse:
            return _json({"message": "Missing Permissions", "code": 50013}, 403)
        if not 0 < len(content) <= 2_000:
            return _json({"message": "Invalid Form Body", "code": 50035}, 400)
        nonce = body["nonce"] if body.get("enforce_nonce") else None
        if nonce is None or nonce not in self._nonces:
            more = {"allowed_mentions": body["allowed_mentions"]}
            if "message_reference" in body:
                more["message_reference"] = {
                    k: str(v) for k, v in body["message_reference"].items() if k.endswith("_id")
                }
            kept = self._keep(request.match_info["channel"], BOT, content, **more)
            if nonce is not None:
                self._nonces[nonce] = kept["id"]
            self._dispatch("MESSAGE_CREATE", self._told(kept))
        message = kept if nonce is None else self.messages[self._nonces[nonce]]
        if self.lose_replies:
            self.lose_replies -= 1
            assert request.transport is not None
            request.transport.abort()
        return _json(message)

    async def _message(self, request: web.Request) -> web.Response:
        message = self.messages.get(request.match_info["message"])
        if message is None or message["id"] in self._deleted or message["channel_id"] != request.match_info["channel"]:
            return _json({"message": "Unknown Message", "code": 10008}, 404)
        return _json(message)

    async def _history(self, request: web.Request) -> web.Response:
        channel, after = request.match_info["channel"], int(request.query.get("after", "0"))
        if channel == SILENT:
            return _json({"message": "Missing Access", "code": 50001}, 403)
        found = [m for m in self.messages.values() if m["channel_id"] == channel and int(m["id"]) > after]
        return _json(list(reversed(found[: int(request.query["limit"])])))

    async def _put_reaction(self, request: web.Request) -> web.Response:
        self.reactions.append((request.match_info["message"], request.match_info["emoji"]))
        self.react(*self.reactions[-1], author=BOT)
        return web.Response(status=204)

    # Gateway

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 45_000}})
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            said = json.loads(frame.data)
            if said["op"] == 1:
                await socket.send_json({"op": 11})
            elif said["op"] == 2:
                await self._identify(socket, request.transport)
            elif said["op"] == 6 and said["d"]["session_id"] == self._session:
                await self._resume(socket, request.transport)
            elif said["op"] == 6:
                await socket.send_json({"op": 9, "d": False})
        self._sockets.pop(socket, None)
        self.notify()
        return socket

    async def _identify(self, socket: web.WebSocketResponse, transport: Any) -> None:
        self.identified += 1
        self._session, self._events = f"session-{self.identified}", []
        ready = {
            "v": 10,
            "user": user(BOT),
            "guilds": [{"id": GUILD, "unavailable": True}],
            "session_id": self._session,
            "resume_gateway_url": f"ws://127.0.0.1:{self.port}/gateway",
            "application": {"id": "1", "flags": 0},
        }
        self._event("READY", ready)
        self._event("GUILD_CREATE", self._guild())
        for event in self._events:  # grows while this waits
            await socket.send_json(event)
        self._sockets[socket] = transport
        self.notify()

    async def _resume(self, socket: web.WebSocketResponse, transport: Any) -> None:
        self.resumed += 1
        for event in self._events:
            if event["t"] not in ("READY", "GUILD_CREATE", "RESUMED"):
                await socket.send_json(event)
        self._sockets[socket] = transport
        await socket.send_json(self._event("RESUMED", {}))
        self.notify()

    def _event(self, type_: str, data: Json) -> Json:
        self._events.append({"op": 0, "t": type_, "s": len(self._events) + 1, "d": data})
        return self._events[-1]

    def _dispatch(self, type_: str, data: Json) -> None:
        event = self._event(type_, data)
        for socket in list(self._sockets):
            self._start(self._send(socket, event))
        self.notify()

    async def _send(self, socket: web.WebSocketResponse, event: Json) -> None:
        try:
            await socket.send_json(event)
        except (ConnectionError, RuntimeError):
            self._sockets.pop(socket, None)  # dropped meanwhile: the event stays for a RESUME

    # State

    def _keep(self, channel: str, author: str, text: str, **fields: Any) -> Json:
        self._next_id += 1
        message = {
            "id": str(self._next_id),
            "channel_id": channel,
            "author": user(author),
            "content": text,
            "timestamp": TIME,
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [user(BOT)] if f"<@{BOT}>" in text or f"<@!{BOT}>" in text else [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
        }
        self.messages[message["id"]] = message | fields
        self.notify()
        return self.messages[message["id"]]

    def _told(self, message: Json) -> Json:
        """The message as an event tells of it: with its guild, and without content where the bot may not read it."""
        if message["channel_id"] == DM:
            return message
        mine = message["author"]["id"] == BOT or any(u["id"] == BOT for u in message["mentions"])
        seen = message if mine else message | {"content": ""}
        return seen | {"guild_id": GUILD, "member": member(message["author"]["id"])}

    def _guild(self) -> Json:
        def channel(id_: str) -> Json:
            last = [m["id"] for m in self.messages.values() if m["channel_id"] == id_]
            known = {"topic": None, "nsfw": False, "parent_id": None, "permission_overwrites": []}
            name = {"name": f"channel{id_}", "position": 0, "rate_limit_per_user": 0}
            return {"id": id_, "type": 0, "last_message_id": last[-1] if last else None} | known | name

        lists = ("emojis", "stickers", "features", "members", "presences", "voice_states")
        thread = {"type": 11, "parent_id": CHANNEL, "owner_id": ALICE, "message_count": 0, "member_count": 1}
        thread |= {"thread_metadata": {"archived": False, "auto_archive_duration": 60, "archive_timestamp": TIME}}
        more = ("stage_instances", "guild_scheduled_events", "soundboard_sounds")
        role = {"id": GUILD, "name": "@everyone", "permissions": "0", "position": 0, "color": 0, "hoist": False}
        role |= {"managed": False, "mentionable": False, "flags": 0}
        return {
            "id": GUILD,
            "name": "guild",
            "owner_id": ALICE,
            "member_count": 2,
            "unavailable": False,
            "channels": [channel(CHANNEL), channel(SILENT)],
            "threads": [channel(THREAD) | thread],
            "roles": [role],
            **{name: [] for name in (*lists, *more)},
        }

    def notify(self) -> None:
        """Something happened: let those who wait look again."""

        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._start(wake())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)


def _json(data: object, status: int = 200) -> web.Response:
    # web.json_response would add a charset to the type, and discord.py then takes the body for text.
    body = json.dumps(data).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})
