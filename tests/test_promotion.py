"""The sweep: what stays, what goes, and that nothing is lost in between."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor import storage
from spectrogram_predictor.config import PromotionSettings, UploadSettings
from spectrogram_predictor.errors import (
    DeadlineExceeded,
    InsufficientStorage,
    SpectrogramPredictorError,
    StorageUnavailable,
    TooSlow,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
    WorkerLost,
)
from spectrogram_predictor.promotion import MAX_TRIAL_LOADS, TRIALS_AT_A_TIME, Promoter
from spectrogram_predictor.registration import Registration, Request
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.uploads import Uploads
from tests.conftest import b64, sha256

HDF5 = b"\x89HDF\r\n\x1a\n a model"
ZIP = b"PK\x03\x04 a model"


class House:
    """A storage with a promoter whose trial load is the test's."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.root = folder
        self.backend = LocalBackend(str(folder), {})
        self.registry = Registry(self.backend)
        self.uploads = Uploads(self.backend, UploadSettings())
        self.inspected: list[str] = []
        self.tried: list[Registration] = []
        self.refusal: Exception | None = None
        self.promoter = Promoter(
            self.backend, self.registry, self.uploads, self.inspect, PromotionSettings(**settings)
        )

    async def inspect(self, key: str, registration: Registration, format_: str) -> dict[str, Any]:
        self.inspected.append(format_)
        self.tried.append(registration)
        if self.refusal:
            raise self.refusal
        return {"format": format_, "inputs": [], "outputs": [{"shape": [3]}]}

    async def receive(self, data: bytes) -> str:
        upload = await self.uploads.begin()
        await upload.write(data)
        await upload.commit()
        return await upload.sha256()

    def drop(self, name: str, data: bytes, age_s: float = 0) -> Path:
        path = self.root / "temp" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    async def publish(self, data: bytes, **fields: Any) -> str:
        """Register, receive and promote."""
        await self.promoter.register(request(sha256(data), **fields))
        digest = await self.receive(data)
        assert await self.promoter.sweep() == [digest]
        return digest

    def later(self, seconds: float) -> None:
        """Let the storage's clock go forward."""

        async def now() -> float:
            return os.stat(self.root).st_mtime + seconds

        self.backend.now = now  # type: ignore[method-assign]

    def goldens(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("golden/*"))

    def files(self) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir())
        return sorted(name for name in found if name.startswith(("temp/", "models/", "incoming/", "rejected/")))


def request(digest: str, **fields: Any) -> Request:
    return Request.parse({"hash": digest, **fields})


def golden(song: bytes, expected: float = 0.5) -> dict[str, Any]:
    return {"song": b64(song), "expected": [expected]}


@pytest.fixture
def house(io_loop: IOLoop, tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    io_loop.run_sync(house.backend.open)
    yield house
    house.uploads.close()
    io_loop.run_sync(house.backend.close)


@pytest.mark.parametrize(("data", "ending"), [(HDF5, "h5"), (ZIP, "keras")])
@pytest.mark.gen_test
async def test_what_is_registered_is_promoted(house: House, data: bytes, ending: str) -> None:
    """The first bytes decide on the format; the content hashes to the name."""
    await house.registry.register(Registration(sha256(data)))
    digest = await house.receive(data)
    assert await house.promoter.sweep() == [digest]
    assert house.files() == [f"models/{digest}.{ending}"]
    assert (house.root / f"models/{digest}.{ending}").read_bytes() == data
    assert await house.promoter.sweep() == []


@pytest.mark.gen_test
async def test_what_is_not_registered_is_deleted(house: House) -> None:
    """An upload that nobody announced is gone after the sweep."""
    await house.receive(HDF5)
    assert await house.promoter.sweep() == []
    assert house.files() == []
    assert house.inspected == []


@pytest.mark.gen_test
async def test_a_file_put_there_by_hand_is_promoted(house: House) -> None:
    """Whatever its name: the content is hashed, copied and verified."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    house.drop("my best model (3).txt", HDF5)
    house.drop("folder/model.keras", HDF5)
    assert await house.promoter.sweep() == [digest]
    assert house.files() == [f"models/{digest}.h5"]


@pytest.mark.gen_test
async def test_a_file_put_there_by_hand_has_time_to_arrive(house: House) -> None:
    """Half a file is left alone while it is young, and promoted when it is whole."""
    await house.registry.register(Registration(sha256(HDF5)))
    path = house.drop("model", HDF5[:9])
    assert await house.promoter.sweep() == []
    with path.open("ab") as file:
        file.write(HDF5[9:])
    assert await house.promoter.sweep() == [sha256(HDF5)]


@pytest.mark.gen_test
async def test_the_name_of_a_file_put_there_by_hand_says_nothing(house: House) -> None:
    """Also if it looks like one of ours."""
    await house.registry.register(Registration(sha256(HDF5)))
    path = house.drop("model.upload", HDF5[:9])
    assert await house.promoter.sweep() == []
    with path.open("ab") as file:
        file.write(HDF5[9:])
    assert await house.promoter.sweep() == [sha256(HDF5)]


@pytest.mark.gen_test
async def test_a_file_put_there_by_hand_does_not_stay_for_ever(tmp_path: Path) -> None:
    """After the grace time, what nobody registered goes, and so does what is no file."""
    house = House(tmp_path, temp_grace_s=0)
    await house.backend.open()
    house.drop("model", HDF5)
    assert await house.promoter.sweep() == []
    assert house.files() == []
    house.uploads.close()
    await house.backend.close()


@pytest.mark.gen_test
async def test_links_and_pipes_are_removed_unread(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A link is not a way to have the server read its host."""
    os.mkfifo(house.root / "temp" / "pipe")
    (house.root / "temp" / "link").symlink_to("/etc/hostname")
    await house.promoter.sweep()
    assert house.files() == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    caplog.clear()


@pytest.mark.parametrize("data", [b"version https://git-lfs", b"\x80\x04pickle", b"", b"\x89HD", b"xPK\x03\x04"])
@pytest.mark.gen_test
async def test_what_is_no_model_is_rejected(house: House, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Registered or not: the reason is kept, the file is not."""
    digest = sha256(data)
    await house.registry.register(Registration(digest))
    house.drop("model.h5", data)
    assert await house.promoter.sweep() == []
    assert house.files() == [f"rejected/{digest}.json"]
    state = await house.registry.state(digest)
    assert state
    assert state.state == "rejected"
    assert "Keras" in (state.reason or "")
    caplog.clear()


@pytest.mark.gen_test
async def test_a_trial_load_that_fails_rejects(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """And a new registration gives the file another chance."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    house.refusal = Unprocessable("two outputs")
    await house.receive(HDF5)
    assert await house.promoter.sweep() == []
    assert house.files() == [f"rejected/{digest}.json"]
    house.refusal = None
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    assert await house.promoter.sweep() == [digest]
    caplog.clear()


@pytest.mark.gen_test
async def test_labels_must_fit(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Two names for three numbers are a mistake that is better found now."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest, ("a", "b")))
    await house.receive(HDF5)
    assert await house.promoter.sweep() == []
    state = await house.registry.state(digest)
    assert state
    assert state.reason == "2 labels were registered, but the model answers 3 numbers"
    caplog.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "refusal",
    [
        WorkerLost("gone"),
        Unavailable("no memory"),
        TooSlow("it took its worker longer than 60 s"),
        SpectrogramPredictorError("internal error"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_trial_that_takes_too_much_is_tried_again(
    house: House, caplog: pytest.LogCaptureFixture, refusal: SpectrogramPredictorError
) -> None:
    """A lost worker, memory, time, a bug: it may not have been the model's fault; three times, it was."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    house.refusal = refusal
    await house.promoter.sweep()
    house.refusal = None
    assert await house.promoter.sweep() == [digest]
    house.refusal = refusal
    await house.receive(HDF5)
    for _ in range(MAX_TRIAL_LOADS):
        await house.promoter.sweep()
    assert f"rejected/{digest}.json" in house.files()
    assert f"trying it failed 3 times: {refusal.message}" in caplog.text
    caplog.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "refusal",
    [DeadlineExceeded("busy"), StorageUnavailable("away"), InsufficientStorage("no room on this machine")],
    ids=lambda error: type(error).__name__,
)
async def test_slow_workers_cost_no_model(
    house: House, caplog: pytest.LogCaptureFixture, refusal: Unavailable
) -> None:
    """However often the trial load has no time, the file stays and is promoted when there is some."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    house.refusal = refusal
    for _ in range(MAX_TRIAL_LOADS + 2):
        assert await house.promoter.sweep() == []
    house.refusal = None
    assert await house.promoter.sweep() == [digest]
    caplog.clear()


@pytest.mark.gen_test
async def test_sweeps_are_coalesced_and_never_overlap(house: House) -> None:
    """Calls during a sweep share the next one, which sees what has come meanwhile."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    entries = house.backend.list
    running, looking = 0, asyncio.Event()

    async def slow_list(prefix: str) -> Any:
        nonlocal running
        if prefix != storage.TEMP:
            return await entries(prefix)
        running += 1
        assert running == 1
        found = await entries(prefix)
        looking.set()
        await asyncio.sleep(0.05)
        running -= 1
        return found

    house.backend.list = slow_list  # type: ignore[method-assign]
    first = asyncio.create_task(house.promoter.sweep())
    await looking.wait()
    other = sha256(ZIP)
    await house.registry.register(Registration(other))
    await house.receive(ZIP)
    rest = await asyncio.gather(*[house.promoter.sweep() for _ in range(5)])
    assert await first == [digest]
    assert rest == [[other]] * 5


class Slow:
    """A trial that some models do not get out of before the test lets them."""

    def __init__(self, house: House, *slow: str) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self.most = self._running = 0
        self._inspect, self._slow = house.inspect, slow
        house.promoter._inspect = self.inspect

    async def inspect(self, key: str, registration: Registration, format_: str) -> dict[str, Any]:
        self.begun.append(registration.sha256)
        self._running += 1
        self.most = max(self.most, self._running)
        if registration.sha256 in self._slow:
            await self.go_on.wait()
        self._running -= 1
        return await self._inspect(key, registration, format_)


@pytest.mark.gen_test
async def test_a_slow_trial_holds_up_no_other_model(house: House) -> None:
    """Those of this sweep and of later ones are promoted beside it; it is not tried twice, and not forgotten."""
    slow, beside, later = [HDF5 + bytes([number]) for number in range(3)]
    trial = Slow(house, sha256(slow))
    for data in (slow, beside):
        await house.registry.register(Registration(sha256(data)))
        await house.receive(data)
    assert await house.promoter.sweep(patience_s=1.0) == []
    assert f"models/{sha256(beside)}.h5" in house.files()
    await house.registry.register(Registration(sha256(later)))
    await house.receive(later)
    waiting = asyncio.create_task(house.promoter.sweep())
    await asyncio.wait([waiting], timeout=1.0)
    assert not waiting.done()
    assert f"models/{sha256(later)}.h5" in house.files()
    trial.go_on.set()
    assert await waiting == [sha256(later)]
    assert house.files() == sorted(f"models/{sha256(data)}.h5" for data in (slow, beside, later))
    assert sorted(trial.begun) == sorted(map(sha256, (slow, beside, later)))


@pytest.mark.gen_test
async def test_trials_beside_each_other_are_bounded(house: House) -> None:
    """The workers answer predictions as well; files of one content are tried one after the other."""
    datas = [HDF5 + bytes([number]) for number in range(5)]
    trial = Slow(house, *map(sha256, datas))
    for data in datas:
        await house.registry.register(Registration(sha256(data)))
        await house.receive(data)
        await house.receive(data)
    sweeping = asyncio.create_task(house.promoter.sweep())
    await asyncio.wait([sweeping], timeout=0.5)
    assert len(set(trial.begun)) == len(trial.begun) == TRIALS_AT_A_TIME
    trial.go_on.set()
    assert sorted(await sweeping) == sorted(map(sha256, datas))
    assert trial.most == TRIALS_AT_A_TIME


@pytest.mark.gen_test
async def test_what_has_failed_before_is_tried_last(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Two that fail each time take no lane from those that have not been tried yet."""
    bad = [HDF5 + bytes([number]) for number in range(2)]
    trial = Slow(house)
    house.refusal = WorkerLost("gone")
    for data in bad:
        await house.registry.register(Registration(sha256(data)))
        await house.receive(data)
    await house.promoter.sweep()
    house.refusal = None
    await house.registry.register(Registration(sha256(ZIP)))
    await house.receive(ZIP)
    trial.begun.clear()
    await house.promoter.sweep()
    assert sha256(ZIP) in trial.begun[:TRIALS_AT_A_TIME]
    caplog.clear()


@pytest.mark.gen_test
async def test_the_end_of_the_server_ends_trials(house: House) -> None:
    """What was being tried stays for the next server."""
    trial = Slow(house, sha256(HDF5))
    await house.registry.register(Registration(sha256(HDF5)))
    await house.receive(HDF5)
    assert await house.promoter.sweep(patience_s=0.2) == []
    await house.promoter.close()
    trial.go_on.set()
    assert await house.promoter.sweep() == [sha256(HDF5)]
    assert len(trial.begun) == 2


@pytest.mark.gen_test
async def test_an_impatient_call_leaves_the_sweep_alone(house: House) -> None:
    """It answers nothing; the sweep goes on."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    assert await house.promoter.sweep(patience_s=1e-6) == []
    await house.promoter.sweep()
    assert house.files() == [f"models/{digest}.h5"]


@pytest.mark.gen_test
async def test_an_upload_still_moving_is_left_and_an_old_one_expires(house: House) -> None:
    """Age is counted from the last byte."""
    upload = await house.uploads.begin()
    await upload.write(HDF5)
    await house.promoter.sweep()
    assert len(house.files()) == 1

    house.later(10**6)
    await house.promoter.sweep()
    assert house.files() == []
    await upload.cancel()


@pytest.mark.gen_test
async def test_two_servers_sweep_one_storage(house: House, tmp_path: Path) -> None:
    """Whoever comes second finds it done."""
    other = House(tmp_path)
    await other.backend.open()
    datas = [HDF5 + bytes([n]) for n in range(20)]
    for data in datas:
        await house.registry.register(Registration(sha256(data)))
        await house.receive(data)
    await asyncio.gather(house.promoter.sweep(), other.promoter.sweep())
    await house.promoter.sweep()
    assert house.files() == sorted(f"models/{sha256(data)}.h5" for data in datas)
    other.uploads.close()
    await other.backend.close()


@pytest.mark.gen_test
async def test_a_trial_under_terms_that_were_replaced_refuses_nothing(house: House) -> None:
    """Registered anew while it is tried: the file stays, and is tried under what holds now."""
    digest = sha256(HDF5)
    await house.promoter.register(request(digest, labels=["one", "two"]))
    await house.receive(HDF5)
    inspect = house.promoter._inspect

    async def slowly(*args: Any) -> dict[str, Any]:
        house.promoter._inspect = inspect
        await house.promoter.register(request(digest, labels=["a", "b", "c"]))
        return await inspect(*args)

    house.promoter._inspect = slowly
    assert await house.promoter.sweep() == []
    assert await house.promoter.sweep() == [digest]
    state = await house.registry.state(digest)
    assert state
    assert (state.state, state.labels) == ("promoted", ("a", "b", "c"))


@pytest.mark.gen_test
async def test_what_is_registered_while_a_model_is_promoted_is_tried(house: House) -> None:
    """It comes before the promotion, or after it: never unseen."""
    digest = sha256(HDF5)
    await house.promoter.register(request(digest))
    await house.receive(HDF5)
    move, registering = house.backend.move, list[asyncio.Task[None]]()

    async def meanwhile(source: str, destination: str) -> bool:
        registering.append(asyncio.create_task(house.promoter.register(request(digest, labels=["one"]))))
        await asyncio.sleep(0.3)
        return await move(source, destination)

    house.backend.move = meanwhile  # type: ignore[method-assign]
    assert await house.promoter.sweep() == [digest]
    with pytest.raises(Unprocessable, match="1 labels were registered"):
        await registering[0]
    assert (await house.registry.held(digest)).labels == ()


@pytest.mark.gen_test
async def test_a_model_that_takes_long_to_move_holds_up_no_other(house: House) -> None:
    """Others are registered meanwhile."""
    digest = sha256(HDF5)
    await house.promoter.register(request(digest))
    await house.receive(HDF5)
    move, moving, registered = house.backend.move, asyncio.Event(), asyncio.Event()

    async def slow(source: str, destination: str) -> bool:
        moving.set()
        await asyncio.wait_for(registered.wait(), 10)
        return await move(source, destination)

    house.backend.move = slow  # type: ignore[method-assign]
    sweeping = asyncio.create_task(house.promoter.sweep())
    await moving.wait()
    await house.promoter.register(request("a" * 64))
    registered.set()
    assert await sweeping == [digest]


@pytest.mark.gen_test
async def test_registrations_at_two_servers_add_up(house: House, tmp_path: Path) -> None:
    """At the same moment, each of something else."""
    other = House(tmp_path)
    for number in range(4):
        digest = f"{number:064}"
        await house.promoter.register(request(digest))
        await asyncio.gather(
            house.promoter.register(request(digest, labels=["a"])),
            other.promoter.register(request(digest, allow_custom=True)),
        )
        assert await house.registry.get(digest) == Registration(digest, ("a",), allow_custom=True)
    other.uploads.close()
    await other.backend.close()


@pytest.mark.gen_test
async def test_registrations_are_idempotent_and_replaced_by_newer(house: House) -> None:
    """The same again changes nothing; other labels do."""
    digest = "a" * 64
    path = house.root / "registered" / f"{digest}.json"
    await house.registry.register(Registration(digest))
    before = path.stat()
    await house.registry.register(Registration(digest))
    # Reading it may change its access time.
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    await house.registry.register(Registration(digest, ("x",)))
    assert json.loads(path.read_bytes())["labels"] == ["x"]
    assert await house.registry.get(digest) == Registration(digest, ("x",))


@pytest.mark.gen_test
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"labels":[],"sha256":"' + b"b" * 64 + b'"}'])
async def test_a_damaged_registration_costs_no_file(
    house: House, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """It is shown, the others are promoted, and registering again mends it."""
    damaged, good = sha256(HDF5), sha256(ZIP)
    for digest in (damaged, good):
        await house.registry.register(Registration(digest))
    (house.root / "registered" / f"{damaged}.json").write_bytes(damage)
    await house.receive(HDF5)
    await house.receive(ZIP)
    assert await house.promoter.sweep() == [good]
    assert "stays for the next sweep" in caplog.text
    caplog.clear()
    states = {state.sha256: state.state for state in await house.registry.states()}
    assert states == {damaged: "rejected", good: "promoted"}
    await house.registry.register(Registration(damaged))
    assert await house.promoter.sweep() == [damaged]


@pytest.mark.gen_test
async def test_damage_to_what_is_known_of_a_model_costs_no_answer(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """What loading showed, or why it was refused, can be done without."""
    await house.registry.register(Registration(sha256(HDF5)))
    await house.receive(HDF5)
    await house.promoter.sweep()
    for folder in ("inspected", "rejected"):
        (house.root / folder).mkdir(exist_ok=True)
        (house.root / folder / f"{sha256(HDF5)}.json").write_bytes(b"{")
    (house.root / "rejected" / "notes.txt").write_bytes(b"x")
    assert [state.state for state in await house.registry.states()] == ["promoted"]
    assert "is damaged" in caplog.text
    caplog.clear()


@pytest.mark.gen_test
async def test_a_served_model_is_tried_under_a_new_registration(house: House) -> None:
    """Before it holds; the same one again is no news, and neither is a bare hash."""
    digest = await house.publish(HDF5, labels=["a", "b", "c"])
    house.tried.clear()
    for fields in ({}, {"labels": ["a", "b", "c"]}):
        await house.promoter.register(request(digest, **fields))
    assert house.tried == []
    await house.promoter.register(request(digest, golden=[golden(b"song")]))
    kept = await house.registry.get(digest)
    assert kept
    assert house.tried == [kept]
    assert (kept.labels, len(kept.golden)) == (("a", "b", "c"), 1)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "refusal", [Unprocessable("golden 1: no"), UnsupportedMedia("no"), DeadlineExceeded("busy")]
)
async def test_a_registration_that_does_not_pass_changes_nothing(house: House, refusal: Exception) -> None:
    """The model goes on under the one that it has, and the reason is given."""
    digest = await house.publish(HDF5, golden=[golden(b"song")])
    before = await house.registry.get(digest)
    house.refusal = refusal
    with pytest.raises(type(refusal), match=str(refusal)):
        await house.promoter.register(request(digest, golden=[golden(b"another song")]))
    assert await house.registry.get(digest) == before
    state = await house.registry.state(digest)
    assert state
    assert state.state == "promoted"


@pytest.mark.gen_test
async def test_labels_must_fit_a_served_model_too(house: House) -> None:
    """Two names for three numbers."""
    digest = await house.publish(HDF5)
    with pytest.raises(Unprocessable, match="2 labels"):
        await house.promoter.register(request(digest, labels=["a", "b"]))
    await house.promoter.register(request(digest, labels=["a", "b", "c"]))


@pytest.mark.gen_test
async def test_a_model_is_promoted_under_what_it_was_tried_under(house: House) -> None:
    """Registered anew during its trial, it is tried again."""
    digest = sha256(HDF5)
    await house.registry.register(Registration(digest))
    await house.receive(HDF5)
    inspect = house.inspect

    async def register_meanwhile(*args: Any) -> dict[str, Any]:
        house.promoter._inspect = inspect
        await house.promoter.register(request(digest, golden=[golden(b"song")]))
        return await inspect(*args)

    house.promoter._inspect = register_meanwhile
    assert await house.promoter.sweep() == []
    assert await house.promoter.sweep() == [digest]
    assert [len(registration.golden) for registration in house.tried] == [0, 1]


@pytest.mark.gen_test
async def test_songs_that_no_golden_names_are_removed(house: House) -> None:
    """Once they have been there for long; those that are named stay for ever."""
    digest = await house.publish(HDF5, golden=[golden(b"old"), golden(b"both")])
    await house.promoter.register(request(digest, golden=[golden(b"both"), golden(b"new")]))
    other = sha256(ZIP)
    await house.promoter.register(request(other, golden=[golden(b"other's")]))
    # As of a server that is killed before it writes the registration.
    await house.registry.keep({sha256(b"nobody's"): b"nobody's"})
    (house.root / "registered" / "notes.txt").write_bytes(b"x")
    everything = [b"old", b"both", b"new", b"other's", b"nobody's"]
    await house.promoter.sweep()
    assert house.goldens() == sorted(map(sha256, everything))
    house.later(10**6)
    await house.promoter.sweep()
    assert house.goldens() == sorted(map(sha256, [b"both", b"new", b"other's"]))
    await house.promoter.register(request(other, golden=[]))
    await house.promoter.sweep()
    assert house.goldens() == sorted(map(sha256, [b"both", b"new"]))


@pytest.mark.gen_test
async def test_songs_stay_while_a_registration_cannot_be_read(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """It may name any of them; registering again mends it, and then those that it does not name go."""
    digest = sha256(HDF5)
    await house.promoter.register(request(digest, golden=[golden(b"song")]))
    await house.registry.keep({sha256(b"nobody's"): b"nobody's"})
    (house.root / "registered" / f"{digest}.json").write_bytes(b"{")
    house.later(10**6)
    await house.promoter.sweep()
    assert len(house.goldens()) == 2
    await house.promoter.register(request(digest, golden=[golden(b"song")]))
    await house.promoter.sweep()
    assert house.goldens() == [sha256(b"song")]


@pytest.mark.gen_test
async def test_a_song_that_comes_again_is_not_removed_as_old(house: House) -> None:
    """It may be on its way into a registration that is not written yet."""
    await house.registry.keep({sha256(b"song"): b"song"})
    house.later(10**6)
    named = house.promoter._collection._named

    async def keep_meanwhile(*args: Any) -> Any:
        await house.registry.keep({sha256(b"song"): b"song"})
        return await named(*args)

    house.promoter._collection._named = keep_meanwhile  # type: ignore[method-assign]
    await house.promoter.sweep()
    assert house.goldens() == [sha256(b"song")]


@pytest.mark.gen_test
async def test_songs_are_looked_for_only_when_something_has_changed(house: House) -> None:
    """A thousand registrations are not read again in every sweep."""
    await house.publish(HDF5, golden=[golden(b"song")])
    house.later(10**6)
    await house.promoter.sweep()
    house.promoter._collection._named = None  # type: ignore[method-assign, assignment]
    await house.promoter.sweep()
    assert house.goldens() == [sha256(b"song")]


@pytest.mark.gen_test
async def test_a_lost_recipe_is_asked_for(house: House) -> None:
    """A bare hash does not make do without it; null does."""
    digest = await house.publish(HDF5, recipe="gtzan-features")
    registered = house.root / "registered" / f"{digest}.json"
    for damage in (lambda: registered.write_bytes(b"{"), registered.unlink):
        damage()
        with pytest.raises(Unprocessable, match="recipe"):
            await house.promoter.register(request(digest, labels=["a", "b", "c"]))
        await house.promoter.register(request(digest, recipe="gtzan-features"))
    await house.promoter.register(request(digest, recipe=None))
    registered.unlink()
    await house.promoter.register(request(digest))
    assert await house.registry.held(digest) == Registration(digest)


@pytest.mark.gen_test
async def test_requests_at_the_same_time_are_all_kept(house: House) -> None:
    """Each changes what it mentions of what the others have made of it."""
    digest = await house.publish(HDF5)
    inspect = house.inspect

    async def slow(*args: Any) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return await inspect(*args)

    house.promoter._inspect = slow
    changes: list[dict[str, Any]] = [
        {"labels": ["a", "b", "c"]},
        {"recipe": "gtzan-features"},
        {"golden": [golden(b"song")]},
        {},
    ]
    await asyncio.gather(*[house.promoter.register(request(digest, **fields)) for fields in changes])
    kept = await house.registry.get(digest)
    assert kept
    assert (kept.labels, len(kept.golden)) == (("a", "b", "c"), 1)
    assert kept.recipe
    assert house.tried[-1] == kept
