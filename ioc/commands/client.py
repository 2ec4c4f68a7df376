"""Who puts a value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Habits:
    """What one connection has shown of how its client works; it lasts as long as the connection."""

    uses_acquire: bool = False  # its captures take what Acquire lets through, and nothing else


@dataclass(frozen=True)
class Client:
    """Who put a value, as the client itself claims, and the address it came from."""

    user: str
    host: str
    address: str
    habits: Habits = field(default_factory=Habits, compare=False)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


AUTOSAVE = Client("autosave", "localhost", "")
"""Who puts the saved setpoints back."""
