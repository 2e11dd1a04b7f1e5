"""Modalities: threads that send small chest X-rays, and send again what was not answered with success."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from gateway.calling import PromptEntity
from tests.acceptance.faults.ledger import Ledger, SentStudy
from tests.services.process import HANGS_S, wait_until

CALLED_AE = "HYBRIDMED"
CALLING_AE = "MODALITY"
MOST_WAITING = 10
"""Studies without a result, over which the modalities pause: the worker is the slowest part."""
_WAYS = ("one", "one", "one", "two", "two", "repeated", "reordered", "aborted", "probed")
_STEP_S = 15.0
_PIXELS_ON_SHORT_SIDE = 160
_SETTLE_S = 60.0


@dataclass(frozen=True)
class Study:
    """A study to send, and how."""

    sent: SentStudy
    images: Sequence[Dataset]
    way: str


class Load:
    """Modalities at work; a context manager around their threads.

    Parameters
    ----------
    receivers
        Addresses and ports of the gateway's Storage SCPs; where one does not take a study, the next is tried.
    ledger
        Where answers are written down.
    template
        A chest X-ray; studies are made of it, smaller.
    seed
        Of what is sent and how.
    every_s
        Mean pause of each modality between studies.
    modalities
        How many send at once.
    step_s
        How long a modality waits for each answer.
    """

    def __init__(  # noqa: PLR0913 # what a load is made of, by name
        self,
        receivers: Sequence[tuple[str, int]],
        ledger: Ledger,
        template: Path,
        *,
        seed: int,
        every_s: float,
        modalities: int = 2,
        step_s: float = _STEP_S,
    ) -> None:
        self._receivers = receivers
        self._step_s = step_s
        self._ledger = ledger
        self._template = _smaller(template)
        self._seed = seed
        self._every_s = every_s
        self._ending = threading.Event()
        self._paused = threading.Event()
        self._associated = threading.Semaphore(modalities)
        self._modalities = modalities
        self._unfinished: set[str] = set()
        self._threads = [
            threading.Thread(target=self._send_on, args=(number,), name=f"modality-{number}", daemon=True)
            for number in range(modalities)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(_SETTLE_S)

    def pause(self, within_s: float = HANGS_S) -> None:
        """Begin nothing new; returns when all that was begun is answered with success, TimeoutError otherwise."""
        self._paused.set()
        wait_until(lambda: not self._unfinished, within_s, "all instances answered with success")

    def resume(self) -> None:
        """Go on."""
        self._paused.clear()

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Wait until no association is open, and let nobody open one."""
        for _ in range(self._modalities):
            if not self._associated.acquire(timeout=_SETTLE_S):
                raise TimeoutError("an association does not end")
        try:
            yield
        finally:
            self._associated.release(self._modalities)

    def _send_on(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        made = 0
        while not self._ending.wait(dice.uniform(0.3, 1.7) * self._every_s):
            if self._paused.is_set() or self._ledger.without_result() > MOST_WAITING:
                continue
            name = f"faults {self._seed} {number} {made}"
            made += 1
            self._unfinished.add(name)
            self._send_until_answered(self._make(name, dice.choice(_WAYS)), dice)
            self._unfinished.discard(name)

    def _make(self, name: str, way: str) -> Study:
        images = [_renamed(self._template, name, each) for each in range(1 if way in {"one", "probed"} else 2)]
        digests = {str(image.SOPInstanceUID): _digest(image) for image in images}
        sent = SentStudy(str(images[0].StudyInstanceUID), digests)
        self._ledger.begin(sent)
        return Study(sent, images[::-1] if way == "reordered" else images, way)

    def _send_until_answered(self, study: Study, dice: random.Random) -> None:
        """Send as a modality does: what was not answered with success is sent again."""
        receivers = itertools.cycle(dice.sample(self._receivers, len(self._receivers)))
        parts = [[image] for image in study.images] if study.way == "reordered" else [study.images]
        for images in parts:
            first = True
            while not self._ending.is_set():
                left = [image for image in images if str(image.SOPInstanceUID) not in study.sent.acknowledged]
                if not left:
                    break
                with self._associated:
                    images_now = left * (2 if study.way == "repeated" else 1)
                    self._send(next(receivers), study, images_now, aborts=study.way == "aborted" and first)
                first = False
                self._ending.wait(dice.uniform(0.2, 0.8))

    def _send(self, receiver: tuple[str, int], study: Study, images: Sequence[Dataset], *, aborts: bool) -> None:
        if study.way == "probed":  # as health checks do, all day
            with contextlib.suppress(OSError):
                socket.create_connection(receiver, timeout=5).close()
        association = _associate(receiver, images[0], self._step_s)
        if association is None:
            return
        self._ledger.carry(study.sent)
        try:
            for image in images:
                status = association.send_c_store(image)
                answer = int(status.Status) if "Status" in status else None
                self._ledger.answer(study.sent, str(image.SOPInstanceUID), answer)
                if aborts:
                    association.abort()
                    return
            association.release()
        except (RuntimeError, ValueError):  # the association ended under our hands: pynetdicom says so in these ways
            association.abort()


def _associate(receiver: tuple[str, int], image: Dataset, step_s: float) -> Association | None:
    entity = PromptEntity(CALLING_AE)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = step_s
    entity.add_requested_context(image.SOPClassUID, ExplicitVRLittleEndian)
    association = entity.associate(*receiver, ae_title=CALLED_AE)
    return association if association.is_established else None


def _smaller(template: Path) -> Dataset:
    """Return an X-ray with fewer pixels, uncompressed: the model looks at it in small anyway."""
    dataset = pydicom.dcmread(template)
    pixels = dataset.pixel_array  # (Y, X) uint8
    step = max(1, min(pixels.shape) // _PIXELS_ON_SHORT_SIDE)
    small = pixels[::step, ::step]
    dataset.Rows, dataset.Columns = small.shape
    dataset.ImagerPixelSpacing = [float(each) * step for each in dataset.ImagerPixelSpacing]
    dataset.PixelData = small.tobytes() + b"\0" * (small.size % 2)
    dataset["PixelData"].VR = "OW"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _renamed(template: Dataset, study: str, image: int) -> Dataset:
    dataset = copy.deepcopy(template)
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[study])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study, "series"])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[study, str(image)])
    dataset.InstanceNumber = image + 1
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _digest(image: Dataset) -> str:
    """Return the SHA-256 of a data set as it goes over the network."""
    return hashlib.sha256(encode(image, is_implicit_vr=False, is_little_endian=True) or b"").hexdigest()
