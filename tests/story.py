"""The whole story in chapters: register, upload, sweep, predict, and what goes on meanwhile."""

from collections.abc import Callable

from tests.world import LONG_S, Server, Violation, World, heard, swept

HDF5 = b"\x89HDF\r\n\x1a\n a model of some bytes, for two parts"
ZIP = b"PK\x03\x04 another one, put there by hand"
BROKEN = b"registered, but no model"
STRAY = HDF5 + b" that nobody registered"
BEGUN = HDF5 + b" that three servers receive, one after the other"
PIECES = HDF5 + b" that comes in pieces"
WRONG = HDF5 + b" that comes in others"
MOVING = HDF5 + b" that is under way all the time"


class Chapter:
    """A part of the story: what comes before the server's faults, what it does, and how others go on."""

    async def before(self, world: World, other: Server) -> None:
        """Let another server, without faults, do something."""

    async def tell(self, world: World, server: Server) -> None:
        """Go on, whatever goes wrong."""

    async def after(self, world: World, make: Callable[[float], Server]) -> None:
        """Let servers that are started later go on with what was begun before."""


class Promoted(Chapter):
    """A model is uploaded, promoted and asked; then once more. Another was put there by hand."""

    async def before(self, world: World, other: Server) -> None:
        await world.register(other, ZIP)
        await world.drop(ZIP)

    async def tell(self, world: World, server: Server) -> None:
        await world.register(server, HDF5)
        await world.receive(server, HDF5)
        await swept(server)
        await world.predict(server, HDF5)
        await world.receive(server, HDF5)
        await swept(server)
        await world.predict(server, ZIP)


class Refused(Chapter):
    """Of what must not be promoted nothing is left, and what is still moving stays."""

    async def before(self, world: World, other: Server) -> None:
        await world.register(other, MOVING)
        moving = await world.begin(other)
        assert moving
        await moving.write(MOVING[:20])
        self._moving = moving

    async def tell(self, world: World, server: Server) -> None:
        await world.receive(server, STRAY)
        await world.register(server, BROKEN)
        await world.receive(server, BROKEN)
        await swept(server)

    async def after(self, world: World, make: Callable[[float], Server]) -> None:
        if not await heard(self._moving.write(MOVING[20:])) or not await world.finish(self._moving, MOVING):
            raise Violation("I6: an upload that was moving is gone")


class GoneOnWith(Chapter):
    """An upload is received by three servers, one after the other."""

    async def before(self, world: World, other: Server) -> None:
        await world.register(other, BEGUN)
        begun = await world.begin_partial(other, BEGUN)
        assert begun
        self._begun = begun
        assert await world.go_on(other, begun, 10)

    async def tell(self, world: World, server: Server) -> None:
        await world.go_on(server, self._begun, 30)
        await swept(server)

    async def after(self, world: World, make: Callable[[float], Server]) -> None:
        if not await world.go_on(make(LONG_S), self._begun, len(BEGUN)):
            raise Violation("I6: an upload that can be gone on with cannot")


class InPieces(Chapter):
    """A model comes in pieces, with the right content or another."""

    content = PIECES

    async def tell(self, world: World, server: Server) -> None:
        await world.register(server, PIECES)
        if upload_id := await world.begin_partial(server, PIECES, self.content):
            await world.go_on(server, upload_id, 20)
            await world.go_on(server, upload_id, len(self.content))
        await swept(server)


class InWrongPieces(InPieces):
    content = WRONG


CHAPTERS = (Promoted, Refused, GoneOnWith, InPieces, InWrongPieces)


class Whole(Chapter):
    """All of it, by the same servers."""

    def __init__(self) -> None:
        self._chapters = [chapter() for chapter in CHAPTERS]

    async def before(self, world: World, other: Server) -> None:
        for chapter in self._chapters:
            await chapter.before(world, other)

    async def tell(self, world: World, server: Server) -> None:
        for chapter in self._chapters:
            await chapter.tell(world, server)

    async def after(self, world: World, make: Callable[[float], Server]) -> None:
        for chapter in self._chapters:
            await chapter.after(world, make)
