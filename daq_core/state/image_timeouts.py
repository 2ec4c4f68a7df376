"""When a run has waited too long for images: two optional limits, and no clock of their own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ImageTimeouts:
    """The limits of one run; asked again and again how many images came so far.

    An image that is dropped or incomplete has come, too: what stands still is the detector.
    """

    first_image_s: float | None = None
    stall_s: float | None = None
    _n_images: int = field(default=0, init=False)
    _since: float | None = field(default=None, init=False)

    def pause(self) -> None:
        """Begin to wait anew at the next question."""
        self._since = None

    def overdue(self, n_images: int, now: float) -> str:
        """Return why the run has to end, "" while it may wait.

        Parameters
        ----------
        n_images : images of this run that came so far
        now : monotonic seconds; the first call is when the waiting begins
        """
        if self._since is None or n_images != self._n_images:
            self._n_images, self._since = n_images, now
        limit = self.stall_s if n_images else self.first_image_s
        if limit is None or now - self._since < limit:
            return ""
        if n_images:
            return f"images stopped: none came for {limit:g} s after image {n_images}"
        return f"no image came within {limit:g} s"
